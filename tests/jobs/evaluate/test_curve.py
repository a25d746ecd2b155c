"""A curve over the saves of a training, and the choice of one of its models, on a tiny one that really learned."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from jobs.core import results, seal  # noqa: E402
from jobs.core.spec import Input  # noqa: E402
from jobs.evaluate import choose  # noqa: E402
from jobs.evaluate.gates import GateFailed, GateUndecided  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.lifecycle import publish  # noqa: E402
from jobs.training import models, points  # noqa: E402
from jobs.training.models import load_model  # noqa: E402
from tests.support import benchmark_rows, stages  # noqa: E402
from tests.support.scripted_server import ScriptedServer  # noqa: E402

pytestmark = pytest.mark.train

TASKS: dict[str, Any] = {
    "answers": {"data": "rows", "split": "validation"},
    "translation": {"data": "rows", "split": "validation", "limit": 6, "max_new_tokens": 4},
}
KEPT = {"steps": 12, "lr": 5e-3, "batch_size": 4, "sequence_length": 64, "seed": 3, "threads": 1, "save_every": 2}


def sealed(made: stages.Stage, step: int, **metrics: Any) -> stages.Stage:
    """The stage as its job leaves it: output and seal in their places, and the saves that stay."""
    store = made.spec.store_paths
    made.output.rename(store.output)
    seal.seal_directory(
        store.output, store.seal, kind=seal.SealKind.CHECKPOINT, format="hf", fingerprint=made.spec.fingerprint,
        step=step, metrics=metrics,
    )  # fmt: skip
    publish._remove_saves(made.spec, store.root / "desk")
    return made


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Instructions with a validation split that is another half than the test split."""
    root = tmp_path_factory.mktemp("rows")
    lines = (data / "instructions/output/test.jsonl").read_text().splitlines(keepends=True)
    (root / "output").mkdir()
    (root / "output/validation.jsonl").write_text("".join(lines[:12]))
    (root / "output/test.jsonl").write_text("".join(lines[12:]))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> stages.Stage:
    root = tmp_path_factory.mktemp("trained")
    made = stages.stage(
        root / "sft", "sft", "trl", {**KEPT, "keep_every": 4}, {"checkpoint": base, "data": data / "instructions"}
    )
    (made.spec.store_paths.root / "desk").mkdir()
    made.start()
    return sealed(made, 12)


def curve_of(root: Path, trained: stages.Stage, base: Path, rows: Path, **settings: Any) -> stages.Stage:
    given = {"tasks": TASKS, "curve": {"every": 4, "backend": "trl"}, "seed": 1, "threads": 1, "resamples": 300}
    inputs = {"checkpoint": trained.spec.store_paths.root, "source": base, "rows": rows}
    return stages.stage(root, "evaluate", "trl", {**given, **settings}, inputs)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, trained: stages.Stage, base: Path, rows: Path) -> stages.Stage:
    made = curve_of(tmp_path_factory.mktemp("drawn") / "curve", trained, base, rows)
    made.start()
    made.output.rename(made.spec.store_paths.output)
    return made


def test_saves_that_a_curve_needs_outlive_the_training(trained: stages.Stage) -> None:
    assert trained.spec.store_paths.save_steps() == trained.spec.store_paths.sealed_steps() == [8, 4]


def test_a_save_becomes_a_model_like_the_finished_one(tmp_path: Path, trained: stages.Stage, base: Path) -> None:
    from safetensors.torch import load_file

    from jobs.backends import trl

    save, there = trained.spec.store_paths.save(8), trained.spec.store_paths.output
    trl.of_save(save, base / "output", tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(path.name for path in there.iterdir())
    for path in there.glob("*.json"):
        assert json.loads(path.read_bytes()) == json.loads((tmp_path / "made" / path.name).read_bytes()), path.name
    weights = load_file(save / "model.safetensors")
    found = dict(load_model(tmp_path / "made").named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert (tmp_path / "made/model.safetensors").stat().st_nlink == 2
    seal.verify(save, save / "seal.json")


def test_every_point_is_what_an_evaluation_of_that_model_measures(
    tmp_path: Path, drawn: stages.Stage, trained: stages.Stage, base: Path, rows: Path
) -> None:
    from jobs.backends import trl

    file = drawn.spec.store_paths.output / "evaluation.json"
    drawn_at = results.read_points(file)
    assert list(drawn_at) == [0, 4, 8, 12]
    assert results.read(file) == drawn_at[12]
    losses = [drawn_at[step]["answers"]["metrics"]["answer_loss"]["value"] for step in drawn_at]
    assert losses == sorted(losses, reverse=True), "it learns"
    assert drawn_at[8]["answers"]["metrics"]["answer_loss"]["change"]["high"] < 0
    assert "change" not in drawn_at[0]["answers"]["metrics"]["answer_loss"]
    trl.of_save(trained.spec.store_paths.save(8), base / "output", tmp_path / "save" / "output")
    for step, model in ((0, base), (8, tmp_path / "save"), (12, trained.spec.store_paths.root)):
        given = {"tasks": TASKS, "seed": 1, "threads": 1, "resamples": 300}
        alone = stages.stage(tmp_path / f"at-{step}", "evaluate", "trl", given, {"checkpoint": model, "rows": rows})
        alone.start()
        found = results.read(alone.output / "evaluation.json")
        for task in TASKS:
            for name, one in found[task]["metrics"].items():
                there = drawn_at[step][task]["metrics"][name]
                assert {key: there[key] for key in one} == one


def test_a_curve_goes_on_where_it_was_stopped(
    tmp_path: Path, drawn: stages.Stage, trained: stages.Stage, base: Path, rows: Path
) -> None:
    one = curve_of(tmp_path / "stopped", trained, base, rows)
    for boundary in (1, 2, 2):
        assert one.start(stop_after=boundary).outcome == "stopped"
    assert one.start().outcome == "done"
    expected = (drawn.spec.store_paths.output / "samples.jsonl").read_bytes()
    assert (one.output / "samples.jsonl").read_bytes() == expected


def test_a_save_that_is_missing_or_broken_is_named(
    tmp_path: Path, trained: stages.Stage, base: Path, rows: Path
) -> None:
    import shutil

    there = tmp_path / "entry"
    shutil.copytree(trained.spec.store_paths.root, there)
    weights = there / "saves/checkpoint-4/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    given = replace(trained.spec, store_dir=str(there))
    with pytest.raises(seal.SealBroken, match=r"checkpoint-4/model\.safetensors"):
        curve_of(tmp_path / "broken", stages.Stage(given), base, rows).start()
    shutil.rmtree(there / "saves/checkpoint-8")
    with pytest.raises(points.SavesMissing, match=r"its saves of step 8 are not in .*they were removed"):
        curve_of(tmp_path / "missing", stages.Stage(given), base, rows).start()


def choice_of(root: Path, drawn: stages.Stage, **how: Any) -> stages.Stage:
    settings = {**drawn.spec.settings, "choose": {"by": {"answer_loss": "lower"}, **how}}
    made = stages.stage(root, "evaluate", "trl", settings, {})
    inputs = {
        **drawn.spec.inputs,
        "curve": Input("curve", str(drawn.spec.store_paths.root), "evaluation", "metrics", ""),
    }
    return stages.Stage(replace(made.spec, inputs=inputs))


def test_the_best_model_is_the_output_and_is_measured_again(
    tmp_path: Path, drawn: stages.Stage, trained: stages.Stage, base: Path, rows: Path
) -> None:
    one = choice_of(tmp_path / "chosen", drawn, subject_to={"answer_loss": {"may_rise": 0.5}})
    result = one.start()
    chosen = result.metrics["chosen"]
    assert (result.step, chosen["best"], chosen["points"]) == (12, 12, 3)
    assert chosen["content"] == seal.load(trained.spec.store_paths.seal).content
    assert models.digests(load_model(one.output)) == models.digests(load_model(trained.spec.store_paths.output))
    given = {"tasks": {"answers": {"data": "rows"}}, "seed": 1, "threads": 1, "resamples": 300}
    inputs = {"checkpoint": trained.spec.store_paths.root, "rows": rows}
    alone = stages.stage(tmp_path / "test", "evaluate", "trl", given, inputs)
    alone.start()
    test = results.read(alone.output / "evaluation.json")["answers"]["metrics"]["answer_loss"]
    assert chosen["test"]["value"] == test["value"] != chosen["value"]
    assert "on the validation split" in result.metrics["said"]
    assert "on the test split; the best of several looks better than it is" in result.metrics["said"]


def test_conditions_refuse_points(tmp_path: Path, drawn: stages.Stage) -> None:
    with pytest.raises(
        GateFailed, match=r"no save keeps to subject_to: step 4: answer_loss at_most 0.0: missed; step 8"
    ):
        choice_of(tmp_path / "none", drawn, subject_to={"answer_loss": {"at_most": 0.0}}).start()
    with pytest.raises(GateUndecided, match="no save keeps to subject_to"):
        choice_of(tmp_path / "few", drawn, subject_to={"exact_match": {"at_least": 0.001}}).start()


def test_an_earlier_point_is_taken_where_the_examples_do_not_tell_it_from_the_best() -> None:
    settings = EvaluateSettings.read({"tasks": {"answers": {"data": "d"}}, "seed": 1})
    noise = [0.5 * math.sin(row * 12.9898) for row in range(40)]

    def losses(mean: float, jitter: float) -> dict[str, list[dict[str, Any]]]:
        found = [mean + noise[row] + jitter * math.sin(row * 78.233) for row in range(40)]
        return {
            "answers": [{"task": "answers", "id": str(row), "nll": one, "tokens": 1} for row, one in enumerate(found)]
        }

    how = {"by": {"answer_loss": "lower"}}
    near = {0: losses(3.0, 0), 100: losses(2.5, 0), 200: losses(2.001, 0.05), 300: losses(2.0, 0), 400: losses(2.2, 0)}
    found = choose.choose(near, None, settings, how)
    assert (found.step, found.best) == (200, 300)
    clear = {**near, 200: losses(2.05, 0.05)}
    found = choose.choose(clear, None, settings, how)
    assert (found.step, found.best) == (300, 300), (
        "0.05 is little beside how examples differ, and much over the same ones"
    )
    worst = choose.choose(clear, None, settings, {"by": {"answer_loss": "higher"}})
    assert worst.step == 100


def test_a_judge_looks_at_every_point_and_chooses_only_where_it_is_believed(
    tmp_path: Path, trained: stages.Stage, base: Path, data: Path, rows: Path
) -> None:
    """Who always takes the reference says 0 of each point, who always says A is no judge."""
    server = ScriptedServer()
    by = {"server": server.url, "model": "j", "calibrate_on": "known", "calibrate_limit": 24}
    task = {"judge": "q", "data": "rows", "split": "validation", "limit": 6, "max_new_tokens": 4, "judged_by": by}
    given = {"tasks": {"style": {**task, "against": "references"}}}
    known = data / "preferences"

    def drawn_by(name: str, says: str) -> stages.Stage:
        def script(prompt: str, times: int) -> tuple[int, str]:
            one, other = re.findall(r"Answer [AB]:\n(=== \w+ ===)\n(.*?)\n\1", prompt, re.S)
            return 200, says or ("B" if other[1] in stages.EUROPEAN and one[1] not in stages.EUROPEAN else "A")

        server.script = script
        told = {"tasks": {"style": {**given["tasks"]["style"], "judged_by": {**by, "model": name}}}}
        made = curve_of(tmp_path / "store" / name, trained, base, rows, **told)
        made = stages.Stage(
            replace(made.spec, inputs={**made.spec.inputs, "known": Input("known", str(known), "dataset", "", "")})
        )
        made.start()
        made.output.rename(made.spec.store_paths.output)
        return made

    try:
        good = drawn_by("good", "")
        found = results.read_points(good.spec.store_paths.output / "evaluation.json")
        assert [one["style"]["metrics"]["win_rate"]["n"] for one in found.values()] == [6, 6, 6, 6]
        assert all(one["style"]["metrics"]["judge_accuracy"]["value"] == 1 for one in found.values())
        assert found[12]["style"]["metrics"]["win_rate"]["change"]["n"] == 6, "against step 0"
        asked = len(server.asked)
        assert asked <= 2 * (4 * 6 + 24), "of the known pairs only once"
        chosen = choice_of(tmp_path / "store/chosen", good, by={"win_rate": "higher"}).start()
        assert chosen.metrics["chosen"]["metric"] == "style.win_rate"
        assert chosen.metrics["chosen"]["test"]["n"] == 6
        assert len(server.asked) > asked, "on the test split there are other answers"
        blind = drawn_by("blind", "A")
        with pytest.raises(
            GateUndecided, match=r"no save is chosen by style\.win_rate: judge q is not shown to be better"
        ):
            choice_of(tmp_path / "store/none", blind, by={"win_rate": "higher"}).start()
    finally:
        server.close()


def test_a_task_of_the_harness_chooses(
    tmp_path: Path, trained: stages.Stage, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: make .venv/.dev")
    from jobs.evaluate.harness import index

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    benchmark_rows.write(tmp_path / "arc/output", "arc_easy")
    known = index.find("arc_easy")
    told = {"version": known.version, "files": known.files, "data_set": known.dataset, "measures": known.measures}
    tasks = {"arc": {"harness": "arc_easy", "benchmark": "mine", "shots": 0, **told}}
    made = curve_of(tmp_path / "curve", trained, base, rows, tasks=tasks)
    mine = {"benchmark:mine": Input("mine", str(tmp_path / "arc"), "download", "benchmark", "")}
    made = stages.Stage(replace(made.spec, inputs={**made.spec.inputs, **mine}))
    made.start()
    made.output.rename(made.spec.store_paths.output)
    found = results.read_points(made.spec.store_paths.output / "evaluation.json")
    values = {step: one["arc"]["metrics"]["acc"]["value"] for step, one in found.items() if step}
    result = choice_of(tmp_path / "chosen", made, by={"arc.acc": "higher"}).start()
    assert result.metrics["chosen"]["value"] == values[result.step]
    assert result.metrics["chosen"]["test"] is None
    assert "on its rows, of which there is no other split" in result.metrics["said"]
    assert "no other examples were measured" in result.metrics["said"]
