"""The plan finds the model, refuses what cannot fit a GPU, and proposes a change that does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import speed
from jobs.core.paths import Workspace
from launch import fit
from launch.errors import InputError
from launch.plan import Plan, PlannedInput, PlannedStage
from launch.profile import Profile, Resources
from tests.launch.made_runs import stage

LLAMA_1B = {
    "model_type": "llama", "vocab_size": 128256, "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip
BASE = PlannedInput("base", "download", "hf", "cd" * 32, is_job=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    output = found.entry(BASE.kind, BASE.fingerprint).output
    output.mkdir(parents=True)
    (output / "config.json").write_text(json.dumps(LLAMA_1B))
    return found


def profile(memory: str = "80G") -> Profile:
    partitions = {"gpu": {"gpu_model": "h100", "gpu_memory": memory}}
    return Profile.model_validate({"name": "site", "executor": "slurm", "partitions": partitions})


def training(name: str, given: PlannedInput, **changes: Any) -> PlannedStage:
    settings = {"batch_size": 8, "sequence_length": 2048, "precision": "bf16", **changes}
    resources = Resources(partition="gpu", gpus_per_node=1, time="1:00:00")
    return replace(
        stage(name, steps=100), settings=settings, inputs={"checkpoint": given}, resources=resources,
        backend=changes.pop("backend", "trl"),
    )  # fmt: skip


def test_a_stage_after_another_has_its_model(workspace: Workspace) -> None:
    first = training("cpt", BASE)
    second = training("sft", PlannedInput("cpt", "checkpoint", "hf", "ef" * 32, is_job=True))
    found = fit.estimates(Plan("p", (first, second)), profile(), workspace)
    assert [(each.stage, each.parameters) for each in found] == [("cpt", 1_235_814_400), ("sft", 1_235_814_400)]
    assert found[0].seconds is not None
    assert found[0].segments is not None
    assert "cpt" in fit.show(found)
    json.dumps([each.as_json() for each in found])
    assert found[0].cost is None
    partitions = {"gpu": {"gpu_model": "h100", "gpu_memory": "80G", "cost_per_gpu_hour": 2}}
    site = Profile.model_validate({"name": "site", "executor": "slurm", "partitions": partitions})
    (priced,) = fit.estimates(Plan("p", (first,)), site, workspace)
    assert priced.gpu_hours is not None
    assert priced.cost == (2 * priced.gpu_hours[0], 2 * priced.gpu_hours[1])


@pytest.mark.parametrize(("changes", "known"), [({}, True), ({"micro_batch_size": 2}, False), ({"recompute": "full"}, False)])
def test_hours_after_a_run_of_the_shape(workspace: Workspace, changes: dict[str, Any], known: bool) -> None:
    """The seal of the run on an H100 (benchmarks/gpu/results); by hand the same steps took 0.934 s there."""
    entry = workspace.entry("checkpoint", "12" * 32)
    (entry.output / "hf").mkdir(parents=True)
    (entry.output / "hf" / "config.json").write_text(json.dumps(LLAMA_1B))
    metrics = {
        "gpu": "NVIDIA H100 80GB HBM3", "step_seconds": 0.9655460769999991,
        "step_shape": speed.step_shape(8, 4, 2048, "bf16", "selective", 1, 1, 1, 1),
    }  # fmt: skip
    (entry.root / "seal.json").write_text(json.dumps({"format": "nemo", "metrics": metrics}))
    settings = {"backend": "nemo", "micro_batch_size": 4, "recompute": "selective", **changes}
    (found,) = fit.estimates(Plan("p", (training("cpt", BASE, **settings),)), profile(), workspace)
    assert found.seconds is not None
    if known:
        assert found.seconds[0] == found.seconds[1] == pytest.approx(0.934 * 100, rel=0.15)
        assert " to " not in fit.show([found])
    else:
        assert found.seconds[0] < found.seconds[1]


def test_without_the_model_there_is_no_estimate(tmp_path: Path) -> None:
    plan = Plan("p", (training("cpt", BASE),))
    assert fit.estimates(plan, profile(), Workspace(tmp_path)) == []
    fit.refuse(plan, profile(), Workspace(tmp_path))


def test_what_fits_is_not_refused(workspace: Workspace) -> None:
    plan = Plan("p", (training("cpt", BASE, micro_batch_size=1),))
    fit.refuse(plan, profile(), workspace)
    assert fit.estimates(plan, profile(), workspace)[0].fits


@pytest.mark.parametrize(("backend", "memory", "change"), [("trl", "80G", "micro_batch_size"), ("nemo", "30G", "recompute")])
def test_what_does_not_fit_is_refused_with_what_does(workspace: Workspace, backend: str, memory: str, change: str) -> None:
    plan = Plan("p", (training("cpt", BASE, backend=backend, batch_size=32 if backend == "trl" else 1),))
    with pytest.raises(InputError, match=rf"'gpu' has .* with .*{change}: ") as caught:
        fit.refuse(plan, profile(memory), workspace)
    offered = caught.value.message.rsplit("with ", 1)[1].split(" it needs")[0]
    changes = dict(part.split(": ") for part in offered.split(", "))
    again = training("cpt", BASE, backend=backend, batch_size=plan.stages[0].settings["batch_size"])
    values = {name: int(value) if value.isdigit() else value for name, value in changes.items()}
    fit.refuse(Plan("p", (replace(again, settings={**again.settings, **values}),)), profile(memory), workspace)


def test_what_can_never_fit_says_so(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"weights .*makes it fit"):
        fit.refuse(Plan("p", (training("cpt", BASE),)), profile("4G"), workspace)
