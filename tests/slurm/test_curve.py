"""The saves of a training measured and one of them chosen, on a real Slurm: by the toy back end, and a real tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core import files, results, seal
from tests.support.chains import Chain, wait_for_all
from tests.support.slurm import Slurm
from tests.support.stages import make_model

TOY: dict[str, dict[str, Any]] = {
    "corpus": {"kind": "corpus", "from": "raw/", "document_chars": 400, "split": {"validation": 0.2}},
    "cpt": {
        "kind": "cpt", "backend": "toy", "checkpoint": "base", "data": "corpus", "steps": 20, "lr": 0.5, "batch_size": 8,
        "save_every": 5,
    },
    "curve": {"kind": "curve", "backend": "toy", "checkpoints": "cpt", "tasks": {"perplexity": {"data": "corpus"}}},
    "best": {"kind": "choose", "backend": "toy", "from": "cpt", "by": {"perplexity": "lower"}},
    "more": {
        "kind": "cpt", "backend": "toy", "checkpoint": "best", "data": "corpus", "steps": 2, "lr": 0.5, "batch_size": 8,
    },
}  # fmt: skip
REAL: dict[str, dict[str, Any]] = {
    "pairs": {"kind": "instructions", "from": "./sft.jsonl", "limit": {"train": 64}, "split": {"validation": 0.1}},
    "sft": {
        "kind": "sft", "checkpoint": "base", "data": "pairs", "steps": 8, "lr": 5e-3, "batch_size": 4, "save_every": 2,
        "sequence_length": 64, "threads": 1,
    },
    "curve": {"kind": "curve", "checkpoints": "sft", "every": 2, "tasks": {"answers": {}}, "threads": 1},
    "best": {
        "kind": "choose", "from": "curve", "by": {"answer_loss": "lower"}, "threads": 1,
        "subject_to": {"answer_loss": {"may_rise": 0.1}},
    },
    "final": {"kind": "evaluate", "checkpoint": "best", "tasks": {"answers": {}}, "threads": 1},
}  # fmt: skip


def chain_of(slurm: Slurm, directory: Path, stages: dict[str, Any]) -> Chain:
    chain = Chain(slurm, directory, ())
    chain.pipeline.write_text(yaml.safe_dump({"name": "curve", "model": {"base": "./tiny"}, "stages": stages}))
    return chain


def test_a_curve_and_a_choice_of_the_toy_back_end(slurm: Slurm, tmp_path: Path) -> None:
    chain = chain_of(slurm, tmp_path / "work", TOY)
    chain.fetch()
    run = chain.submit()
    wait_for_all([chain])
    points = results.read_points(chain.store(run, "curve").output / results.FILE)
    assert list(points) == [0, 5, 10, 15, 20]
    losses = {step: tasks["perplexity"]["metrics"]["loss"]["value"] for step, tasks in points.items()}
    assert losses[0] > losses[5] > losses[20]
    assert chain.store(run, "cpt").sealed_steps() == [20, 15, 10, 5] or chain.store(run, "cpt").sealed_steps() == [
        15,
        10,
        5,
    ]
    best = seal.load(chain.store(run, "best").seal)
    assert best.metrics["chosen"]["step"] == min((step for step in losses if step), key=losses.__getitem__)
    assert chain.store(run, "more").seal.exists(), "a stage trains on with what was chosen"
    assert "curve at step 10" in chain.overnight("report", run).stdout


@pytest.mark.full
@pytest.mark.train
def test_a_curve_and_a_choice_of_a_language_model(slurm: Slurm, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the train extra is not installed")
    chain = chain_of(slurm, tmp_path / "work", REAL)
    make_model(chain.directory / "tiny")
    chain.fetch()
    run = chain.submit()
    wait_for_all([chain])
    points = results.read_points(chain.store(run, "curve").output / results.FILE)
    assert list(points) == [0, 4, 8]
    best, trained = chain.store(run, "best"), chain.store(run, "sft")
    told = files.read_json(best.output / "choice.json")
    assert seal.load(best.seal).metrics["chosen"]["content"] == told["content"]
    contents = {4: seal.load(trained.save_seal(4)).content, 8: seal.load(trained.seal).content}
    assert told["content"] == contents[told["step"]]
    source = trained.save(4) if told["step"] == 4 else trained.output
    assert (best.output / "model.safetensors").samefile(source / "model.safetensors")
    final = json.loads((chain.store(run, "final").output / results.FILE).read_text())["tasks"]["answers"]["metrics"]
    assert final["answer_loss"]["value"] == pytest.approx(told["test"]["value"], abs=1e-6)
    shown = chain.overnight("report", run).stdout
    assert "curve at step 4 against step 0" in shown
    assert "believe the second" in shown
