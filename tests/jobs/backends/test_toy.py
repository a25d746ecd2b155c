"""The toy back end: really learns, resumes bit by bit, and needs nothing but the standard library."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.backends import toy
from jobs.core import results
from jobs.evaluate import GateFailed, GateUndecided
from jobs.training.interface import ProcessShape
from jobs.training.settings import BadSettings
from tests.support import stages
from tests.support.stages import Stage

SETTINGS: dict[str, Any] = {"steps": 12, "lr": 8.0, "batch_size": 6, "seed": 3}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A base model of another format: the toy model starts from equal scores."""
    (tmp_path / "empty" / "output").mkdir(parents=True)
    return tmp_path / "empty"


def make(root: Path, kind: str, checkpoint: Path, data: Path, **changes: Any) -> Stage:
    return stages.stage(
        root,
        kind,
        "toy",
        {**SETTINGS, **changes},
        {"checkpoint": checkpoint, "data": data / stages.DATA[kind]},
        {"checkpoint": "toy"},
    )


@pytest.mark.parametrize("kind", ["cpt", "sft", "dpo"])
def test_interrupted_run_equals_uninterrupted_run_bitwise(kind: str, tmp_path: Path, empty: Path, data: Path) -> None:
    whole = make(tmp_path / "whole", kind, empty, data)
    assert whole.start().outcome == "done"
    losses = list(whole.losses().values())
    assert losses[-1] < losses[0]

    parts = make(tmp_path / "parts", kind, empty, data)
    assert parts.start(stop_after=5).outcome == "stopped"
    parts.start()
    assert [event["step"] for event in parts.events if event["event"] == "resumed"] == [5]
    assert parts.losses() == whole.losses()
    assert (parts.output / "model.json").read_bytes() == (whole.output / "model.json").read_bytes()


def test_chain_learns_and_is_measured(tmp_path: Path, empty: Path, data: Path) -> None:
    trained = make(tmp_path / "cpt", "cpt", empty, data, save_every=3, keep_saves=1)
    trained.start()
    assert trained.spec.store_paths.save_steps() == [9]
    trained.output.rename(tmp_path / "cpt" / "output")
    values = []
    for name, checkpoint in (("before", empty), ("after", tmp_path / "cpt")):
        evaluation = stages.stage(
            tmp_path / name,
            "evaluate",
            "toy",
            {"tasks": {"perplexity": {"data": "corpus", "limit": 7}}},
            {"checkpoint": checkpoint, "corpus": data / "corpus"},
            {"checkpoint": "toy", "corpus": "corpus"},
        )
        evaluation.start()
        entry = results.read(evaluation.output / "evaluation.json")["perplexity"]["metrics"]["loss"]
        assert entry["low"] <= entry["value"] <= entry["high"]
        values.append(entry["value"])
    assert values[1] < 0.8 * values[0]


def measured(
    root: Path, checkpoint: Path, data: Path, *, earlier: Path | None = None, limit: int = 12, **settings: Any
) -> Stage:
    inputs = {"checkpoint": checkpoint, "corpus": data / "corpus"}
    given = {"tasks": {"perplexity": {"data": "corpus", "split": "train", "limit": limit}}, **settings}
    formats = {"checkpoint": "toy", "corpus": "corpus"}
    if earlier is not None:
        inputs["compare_to"], formats["compare_to"] = earlier, "evaluation"
    return stages.stage(root, "evaluate", "toy", given, inputs, formats)


def sealed(stage: Stage, root: Path) -> Path:
    """The entry of a stage whose output is whole."""
    stage.output.rename(root / "output")
    return root


def test_gates_are_judged(tmp_path: Path, empty: Path, data: Path) -> None:
    trained = make(tmp_path / "cpt", "cpt", empty, data)
    trained.start()
    model = sealed(trained, tmp_path / "cpt")
    before = measured(tmp_path / "before", empty, data)
    before.start()
    baseline = sealed(before, tmp_path / "before")
    kept = (baseline / "output/samples.jsonl").read_text().splitlines()

    falls = measured(tmp_path / "falls", model, data, earlier=baseline, gate={"perplexity": {"must": "fall"}})
    assert falls.start().outcome == "done"
    numbers = results.read(falls.output / "evaluation.json")["perplexity"]["metrics"]["perplexity"]
    assert numbers["gate"]["verdict"] == "passed"
    assert numbers["higher_is_better"] is False
    first = [json.loads(line)["loss"] for line in kept]
    after = [json.loads(line)["loss"] for line in (falls.output / "samples.jsonl").read_text().splitlines()]
    change = math.exp(sum(after) / len(after)) - math.exp(sum(first) / len(first))
    assert numbers["change"]["value"] == pytest.approx(change)
    assert numbers["change"]["low"] <= change <= numbers["change"]["high"] < 0

    for name, gate, error in (
        ("rises", {"perplexity.loss": {"must": "rise"}}, GateFailed),
        ("bound", {"loss": {"at_most": 0.01}}, GateFailed),
    ):
        with pytest.raises(error):
            measured(tmp_path / name, model, data, earlier=baseline, gate=gate).start()
    with pytest.raises(GateUndecided, match="too few"):
        measured(tmp_path / "few", model, data, earlier=baseline, limit=3, gate={"loss": {"must": "fall"}}).start()
    told = {"loss": {"must": "rise", "tier": "advisory"}}
    assert measured(tmp_path / "told", model, data, earlier=baseline, gate=told).start().outcome == "done"
    assert (
        measured(tmp_path / "go", model, data, earlier=baseline, gate={"loss": {"must": "rise"}}, missed="go")
        .start()
        .outcome
        == "done"
    )


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"gate": {"accuracy": {"must": "rise"}}}, "measures perplexity.loss, perplexity.perplexity"),
        ({"gate": {"loss": {"must": "fall"}}}, "needs compare_to"),
        ({"choose": {"by": {"perplexity": "lower"}, "subject_to": {"loss": {"must": "fall"}}}}, "leave subject_to out"),
    ],
)
def test_what_it_cannot_judge_is_refused_before_any_work(
    tmp_path: Path, empty: Path, data: Path, settings: dict[str, Any], part: str
) -> None:
    stage = measured(tmp_path / "one", empty, data, **settings)
    with pytest.raises(BadSettings, match=part):
        toy.rendered(stage.spec, ProcessShape())


def test_other_ranks_leave_at_once(tmp_path: Path, empty: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stage = make(tmp_path / "cpt", "cpt", empty, data)
    assert stage.start().outcome == "done"
    assert stage.reports() == []


def test_takes_the_settings_of_a_real_back_end(tmp_path: Path, empty: Path, data: Path) -> None:
    stage = make(tmp_path / "cpt", "cpt", empty, data, sequence_length=96, schedule="cosine", warmup_steps=2, steps=2)
    stage.start()
    with pytest.raises(BadSettings, match="did you mean 'step_seconds'"):
        make(tmp_path / "bad", "cpt", empty, data, step_second=1).start()


def test_needs_only_the_standard_library() -> None:
    code = (
        "import sys; from pathlib import Path; from jobs.backends import toy; toy.probe(); toy.behaviour(Path('.'));"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'transformers', 'tokenizers'}))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=stages.ROOT)
    assert made.stdout.strip() == "[]"
    assert set(toy.behaviour(Path("."))) == {"alphabet"}
