"""Validation, early stopping and the choice of a step, by the toy back end; and what is refused, with its line."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.backends import toy
from jobs.core import seal
from jobs.core.progress import ProgressWriter
from jobs.core.settings import EarlyStopping
from jobs.core.validation import best_step, stop_step
from jobs.lifecycle import publish
from jobs.training import interface
from jobs.training.deadline import StopRequest
from jobs.training.interface import ProcessShape, WorkContext
from jobs.training.saves import Saves
from jobs.training.settings import BadSettings, TrainingSettings
from jobs.training.validation import Watch, passes
from launch.base.errors import InputError
from launch.config.pipeline_file import read_pipeline
from tests.support import stages
from tests.support.stages import Stage

SETTINGS: dict[str, Any] = {"steps": 30, "lr": 8.0, "batch_size": 6, "seed": 3, "validate_every": 2}
TEXTS = ("Save the page", "and delete 12 users")
EARLY = {"patience": 3, "min_change": 0.001, "min_steps": 8}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose validation split is unlike what is trained on: its loss falls, and rises again."""
    root = tmp_path_factory.mktemp("given")
    stages.make_data(root)
    rows = [{"id": str(at), "text": text} for at, text in enumerate(TEXTS)]
    stages.write_rows(root / "corpus/output/validation.jsonl", rows)
    (root / "empty/output").mkdir(parents=True)
    return root


def make(root: Path, given: Path, **changes: Any) -> Stage:
    inputs = {"checkpoint": given / "empty", "data": given / "corpus"}
    formats = {"checkpoint": "toy", "data": "corpus"}
    return stages.stage(root, "cpt", "toy", {**SETTINGS, **changes}, inputs, formats)


def scores(stage: Stage) -> Any:
    return json.loads((stage.output / toy.MODEL_FILE).read_text())["scores"]


def validated(stage: Stage) -> dict[int, float]:
    """What the progress says."""
    return {one.step: one.metrics["validation_loss"] for one in stage.reports() if "validation_loss" in one.metrics}


def test_the_loss_is_over_all_characters_of_the_split_and_changes_nothing(tmp_path: Path, given: Path) -> None:
    stage, without = make(tmp_path / "a", given), make(tmp_path / "b", given, validate_every=None)
    result = stage.start()
    without.start()
    assert scores(stage) == scores(without)
    found = validated(stage)
    assert list(found) == list(range(2, 31, 2))
    assert set(found) < {report.step for report in stage.reports()}
    model = scores(stage)
    likelihood = sum(toy.log_likelihood(toy.encode(text), model)[0] for text in TEXTS)
    assert found[30] == pytest.approx(-likelihood / sum(len(text) - 1 for text in TEXTS), rel=1e-12)
    best = best_step(found)
    assert best not in (None, 30)
    assert result.metrics == {
        "loss": result.metrics["loss"], "validation_loss": found[30], "best_validation_loss": found[best], "best_step": best,
    }  # fmt: skip


@pytest.mark.parametrize("every", [1, 3, 4, 5])
def test_a_run_that_is_stopped_again_and_again_ends_at_the_same_step(tmp_path: Path, given: Path, every: int) -> None:
    """A counter that begins again with each start would never come to its patience."""
    whole = make(tmp_path / "whole", given, early_stopping=EARLY, select="best")
    result = whole.start()
    wanted = stop_step(validated(whole), EarlyStopping(**EARLY))
    assert wanted is not None
    assert (result.outcome, result.step) == ("done", wanted)
    early = result.metrics["stopped_early"]
    assert (early["step"], early["of"]) == (wanted, 30)
    assert early["best_step"] == result.metrics["selected_step"] == best_step(validated(whole)) < wanted
    assert "3 validations in a row were not 0.001 better" in early["reason"]

    parts = make(tmp_path / "parts", given, early_stopping=EARLY, select="best", keep_saves=1)
    starts = 1
    while (again := parts.start(stop_after=every)).outcome == "stopped":
        starts += 1
    assert starts == -(-wanted // every)
    assert again == result
    assert scores(parts) == scores(whole)
    assert validated(parts) == validated(whole)


def test_the_best_save_is_kept_and_taken(tmp_path: Path, given: Path) -> None:
    """Also after restarts, and with more saves after it than are kept; a damaged one is passed over."""
    stage = make(tmp_path / "a", given, select="best", keep_saves=1, save_every=3)
    assert stage.start(stop_after=27).outcome == "stopped"
    best = best_step(validated(stage))
    assert best is not None
    assert stage.spec.store_paths.save_steps() == [27, best]
    result = stage.start()
    assert result.metrics["selected_step"] == result.metrics["best_step"] == best
    save = stage.spec.store_paths.save(best)
    assert scores(stage) == json.loads((save / "state.json").read_text())["scores"]
    until = make(tmp_path / "until", given, steps=best, validate_every=None)
    until.start()
    assert scores(stage) == scores(until)

    (save / "state.json").write_text("{}")
    assert stage.start().metrics["selected_step"] == 30
    assert stage.events[-1] == {
        "event": "save_skipped",
        "step": best,
        "path": str(save / "state.json"),
        "reason": stage.events[-1]["reason"],
    }


def test_a_model_whose_last_step_is_the_best_is_that_of_the_last_step(tmp_path: Path, given: Path) -> None:
    stage = make(tmp_path / "a", given, select="best", steps=4, validate_every=100)
    assert stage.start().metrics["selected_step"] == 4
    assert stage.spec.store_paths.save_steps() == []


def test_an_early_end_is_done_only_where_it_was_asked_for(tmp_path: Path, given: Path) -> None:
    spec = replace(make(tmp_path / "a", given, early_stopping=EARLY).spec, target_step=30)
    said = {"step": 10, "metrics": {"stopped_early": {"step": 10, "of": 30}}}
    assert publish.lacks_steps(spec, said) is None
    assert publish.lacks_steps(spec, {**said, "step": 9}) == 30
    assert publish.lacks_steps(spec, {"step": 10, "metrics": {}}) == 30
    assert publish.lacks_steps(replace(spec, settings=SETTINGS), said) == 30


def test_each_row_counts_once_whatever_the_number_of_processes() -> None:
    for count in range(1, 20):
        for world in (1, 2, 3):
            for micro in (1, 2, 4):
                ranks = [list(passes(count, rank, world, micro)) for rank in range(world)]
                counted = [row for passes_ in ranks for rows, counts in passes_ if counts for row in rows]
                assert sorted(counted) == list(range(count))
                shapes = [[len(rows) for rows, _ in passes_] for passes_ in ranks]
                assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize("content", [None, ""])
def test_data_without_a_validation_split_are_refused(tmp_path: Path, given: Path, content: str | None) -> None:
    stages.make_data(tmp_path)
    if content is not None:
        (tmp_path / "corpus/output/validation.jsonl").write_text(content)
    stage = make(tmp_path / "a", tmp_path)
    for refused in (lambda: interface.rendered(toy, stage.spec, ProcessShape()), stage.start):  # type: ignore[arg-type]
        with pytest.raises(BadSettings, match=r"validation\.jsonl has no rows: give stage 'data' a share"):
            refused()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": {"patience": 1}}, "early_stopping: needs validate_every, too"),
        ({"select": "best"}, "select: best needs validate_every, too"),
        (
            {"validate_every": 2, "early_stopping": {"patience": 0}},
            "patience of early_stopping must be at least 1, not 0",
        ),
        ({"validate_every": 2, "early_stopping": {"patience": 1, "min_step": 3}}, "did you mean 'min_steps'"),
        ({"validate_every": 2, "early_stopping": {"min_steps": 3}}, "setting 'patience' of early_stopping is missing"),
        (
            {"validate_every": 2, "early_stopping": 3},
            "must be an object, not int",
        ),
        (
            {"validate_every": 2, "early_stopping": {"patience": 1, "min_steps": 30}},
            "min_steps 30 must be less than steps 30",
        ),
    ],
)
def test_what_a_back_end_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(message)):
        toy.ToySettings.read({"steps": 30, "lr": 1.0, **settings})


def test_a_back_end_that_cannot_validate_says_so() -> None:
    class Own(TrainingSettings):
        pass

    with pytest.raises(
        BadSettings, match="validate_every: this back end does not validate while it trains: leave it out"
    ):
        Own.read({"steps": 30, "lr": 1.0, "validate_every": 2})


def pipeline(path: Path, keys: str, split: str = "") -> Path:
    path.write_text(
        "name: p\nmodel: {base: ./model}\n"
        "sources: {ui: {type: gettext, packages: [a==1], target: [pt]}}\n"
        f"stages:\n  rows: {{kind: instructions, from: ui{split}}}\n"
        f"  tuned:\n    kind: sft\n    checkpoint: base\n    data: rows\n    steps: 30\n    lr: 1e-3\n{keys}"
    )
    return path


NONE = ", split: {validation: 0}"


@pytest.mark.parametrize(
    ("keys", "split", "place", "message"),
    [
        ("validate_every: 0", "", "12:21", "validate_every: must be at least 1, not 0"),
        ("validate_every: 5\nselect: bets", "", "13:13", "select: got 'bets'; nearest: best"),
        ("select: best", "", "12:5", "select: best needs validate_every"),
        ("early_stopping: {patience: 2}", "", "12:5", "early_stopping: needs validate_every"),
        ("validate_every: 5\nearly_stopping:\n  patience: 0", "", "14:17", "patience: must be at least 1, not 0"),
        (
            "validate_every: 5\nearly_stopping: {patience: 2, min_change: -1}",
            "",
            "13:47",
            "min_change: must be at least 0",
        ),
        (
            "validate_every: 5\nearly_stopping: {patience: 2, min_steps: 30}",
            "",
            "13:5",
            "min_steps 30 must be less than steps 30",
        ),
        ("validate_every: 5\nearly_stopping: {patient: 2}", "", "13:22", "patient: unknown key"),
        ("validate_every: 5", NONE, "12:5", "stage rows has no validation split: write split: {validation: 0.05}"),
    ],
)
def test_what_a_pipeline_file_refuses(tmp_path: Path, keys: str, split: str, place: str, message: str) -> None:
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    with pytest.raises(InputError, match=rf"p\.yaml:{place}: stages\.tuned\.[\w.]*(: )?{re.escape(message)}"):
        read_pipeline(pipeline(tmp_path / "p.yaml", lines, split))


def test_a_save_holds_the_validations_of_its_time(tmp_path: Path, given: Path) -> None:
    stage = make(tmp_path / "a", given)
    stage.start(stop_after=5)
    save = stage.spec.store_paths.save(5)
    assert [step for step, _ in json.loads((save / "validations.json").read_text())] == [2, 4]
    seal.verify(save, stage.spec.store_paths.save_seal(5))


def test_the_best_save_is_taken_once_its_seal_is_there(tmp_path: Path, sealing: threading.Event) -> None:
    stage = make(tmp_path / "a", tmp_path)
    store = stage.spec.store_paths
    saves = Saves(store, stage.spec.fingerprint, None, lambda name, **facts: None)
    stop = StopRequest(stage.spec.stage_paths, stage.spec.stage_paths.deadline("7", 0), 0.0)
    ctx = WorkContext(tmp_path, ProgressWriter(tmp_path / "progress"), stop, saves, lambda name, **facts: None)
    watch = Watch(ctx, toy.ToySettings.read({**SETTINGS, "select": "best"}))
    (saves.directory / "checkpoint-2").mkdir()
    (saves.directory / "checkpoint-2" / "state.json").write_text("{}")
    watch.add(2, 0.5)
    watch.seal_beside(2, goes_on=True)
    watch.add(4, 1.5)
    threading.Timer(0.2, sealing.set).start()
    assert watch.chosen(4) == (2, store.save(2))
