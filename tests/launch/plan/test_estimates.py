"""The plan finds the model, refuses what cannot fit a GPU, and proposes a change that does."""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import backends
from jobs.backends.automodel.settings import AutomodelSettings
from jobs.backends.nemo.settings import NemoSettings
from jobs.backends.trl.settings import TrainSettings
from jobs.core import hashing, seal, seal_index, speed
from jobs.core.capabilities import Memory
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.profile import Profile, Resources
from launch.plan import estimates
from launch.plan import file as plan_file
from launch.plan import memory as estimate
from launch.plan.model import Plan, PlannedInput, PlannedStage
from tests.support.llamas import LLAMA_1B
from tests.support.made_runs import stage

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
    return Profile.read({"name": "site", "executor": "slurm", "partitions": partitions})


def training(
    name: str, given: PlannedInput, kind: str = "cpt", gpus: int = 1, python: str = sys.executable, **changes: Any
) -> PlannedStage:
    backend = changes.pop("backend", "trl")
    settings = {"batch_size": 8, "sequence_length": 2048, "precision": "bf16", **changes}
    resources = Resources(partition="gpu", gpus_per_node=gpus, processes_per_node=gpus, time="1:00:00")
    memory = backends.load(backend).CAPABILITIES.memory
    return replace(
        stage(name, steps=100),
        kind=kind,
        settings=settings,
        inputs={"checkpoint": given},
        resources=resources,
        backend=backend,
        memory=memory and memory.installed(()),
        python=python,
    )


def test_a_stage_after_another_has_its_model(workspace: Workspace) -> None:
    first = training("cpt", BASE)
    second = training("sft", PlannedInput("cpt", "checkpoint", "hf", "ef" * 32, is_job=True))
    found = estimates.estimates(Plan("p", (first, second)), profile(), workspace)
    assert [(each.stage, each.parameters) for each in found] == [("cpt", 1_235_814_400), ("sft", 1_235_814_400)]
    assert found[0].seconds is not None
    assert found[0].segments is not None
    header, first_row = estimates.show(found).splitlines()[:3:2]
    least, most = found[0].segments
    assert "segments" in header
    assert first_row.startswith("cpt")
    assert (f"{least} to {most}" if least != most else str(least)) in first_row
    json.dumps([each.as_json() for each in found])
    assert found[0].cost is None
    partitions = {"gpu": {"gpu_model": "h100", "gpu_memory": "80G", "cost_per_gpu_hour": 2}}
    site = Profile.read({"name": "site", "executor": "slurm", "partitions": partitions})
    (priced,) = estimates.estimates(Plan("p", (first,)), site, workspace)
    assert priced.gpu_hours is not None
    assert priced.cost == (2 * priced.gpu_hours[0], 2 * priced.gpu_hours[1])


@pytest.mark.parametrize(
    ("changes", "known"), [({}, True), ({"micro_batch_size": 2}, False), ({"recompute": "full"}, False)]
)
def test_hours_after_a_run_of_the_shape(workspace: Workspace, changes: dict[str, Any], known: bool) -> None:
    """The seal of the run on an H100 (benchmarks/gpu/results); by hand the same steps took 0.934 s there."""
    entry = workspace.entry("checkpoint", "12" * 32)
    (entry.output / "hf").mkdir(parents=True)
    (entry.output / "hf" / "config.json").write_text(json.dumps(LLAMA_1B))
    metrics = {
        "gpu": "NVIDIA H100 80GB HBM3",
        "step_seconds": 0.9655460769999991,
        "step_shape": speed.step_shape(8, 4, 2048, "bf16", "selective", 1, 1, 1, 1),
    }
    seal.write(entry.seal, seal.Seal(seal.SealKind.CHECKPOINT, "nemo", "f" * 64, (), metrics=metrics))
    settings = {"backend": "nemo", "micro_batch_size": 4, "recompute": "selective", **changes}
    (found,) = estimates.estimates(Plan("p", (training("cpt", BASE, **settings),)), profile(), workspace)
    assert found.seconds is not None
    if known:
        assert found.seconds[0] == found.seconds[1] == pytest.approx(0.934 * 100, rel=0.15)
        assert " to " not in estimates.show([found])
    else:
        assert found.seconds[0] < found.seconds[1]


def test_without_the_model_there_is_no_estimate(tmp_path: Path) -> None:
    plan = Plan("p", (training("cpt", BASE),))
    assert estimates.estimates(plan, profile(), Workspace(tmp_path)) == []
    estimates.refuse(plan, profile(), Workspace(tmp_path))


def test_what_fits_is_not_refused(workspace: Workspace) -> None:
    plan = Plan("p", (training("cpt", BASE, micro_batch_size=1),))
    estimates.refuse(plan, profile(), workspace)
    assert estimates.estimates(plan, profile(), workspace)[0].fits


@pytest.mark.parametrize(
    ("backend", "memory", "changes", "offered"),
    [
        ("trl", "80G", {"batch_size": 32}, "micro_batch_size"),
        ("trl", "28G", {"batch_size": 4, "micro_batch_size": 2}, "recompute: true"),
        ("trl", "20G", {"gpus": 2, "batch_size": 2}, "shard: full"),
        ("trl", "14G", {"batch_size": 4, "micro_batch_size": 1}, "shard: full, nodes: 4"),
        ("trl", "24G", {"kind": "dpo", "batch_size": 1, "sequence_length": 1024}, "lora_rank: 16"),
        ("trl", "7G", {"batch_size": 1, "sequence_length": 512, "shard": "full"}, "lora_rank: 16"),
        ("trl", "12G", {"gpus": 2, "batch_size": 2, "optimizer": "adamw_8bit"}, "lora_rank: 16"),
        ("trl", "9G", {"batch_size": 4, "lora_rank": 16}, "micro_batch_size"),
        ("nemo", "30G", {"batch_size": 1}, "recompute"),
        ("automodel", "22G", {"batch_size": 1}, "recompute: true"),
        ("nemo", "20G", {"gpus": 2, "recompute": "full"}, "tensor_parallel: 2"),
        ("nemo", "20G", {"gpus": 2, "recompute": "full", "num_key_value_heads": 1}, "pipeline_parallel: 2"),
        ("nemo", "20G", {}, "pipeline_parallel: 2, nodes: 2"),
        ("nemo", "9G", {"batch_size": 1, "recompute": "full"}, "lora_rank: 16"),
        ("nemo", "9G", {"batch_size": 4, "lora_rank": 4, "recompute": "selective"}, "micro_batch_size"),
        ("automodel", "12G", {"gpus": 4, "recompute": True, "sequence_length": 8192}, "tensor_parallel: 4"),
        ("automodel", "8G", {"gpus": 1, "batch_size": 1, "sequence_length": 512}, "lora_rank: 16"),
        ("trl", "7G", {"batch_size": 1, "sequence_length": 512, "shard": "full", "save_beside": True}, "lora_rank: 16"),
        ("nemo", "9G", {"batch_size": 1, "recompute": "full", "fp8": "delayed", "save_beside": True}, "lora_rank: 16"),
        ("nemo", "24G", {"kind": "sft", "packed": True, "batch_size": 4}, "recompute"),
        ("automodel", "40G", {"kind": "sft", "gpus": 2, "batch_size": 32}, "micro_batch_size"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(
    workspace: Workspace, backend: str, memory: str, changes: dict[str, Any], offered: str
) -> None:
    """By what each back end says that it can do; and what is offered is taken."""
    groups = changes.get("num_key_value_heads", 8)  # one group of keys cannot be split over two GPUs
    config = workspace.entry(BASE.kind, BASE.fingerprint).output / "config.json"
    config.write_text(json.dumps({**LLAMA_1B, "num_key_value_heads": groups}))
    kind = changes.pop("kind", "cpt")
    given = training("cpt", BASE, kind, backend=backend, **changes)
    with pytest.raises(InputError, match=r"'gpu' has .* with .*: ") as caught:
        estimates.refuse(Plan("p", (given,)), profile(memory), workspace)
    words = caught.value.message.rsplit("with ", 1)[1].split(" it needs")[0]
    assert offered in words
    values = {
        name.removeprefix("options."): yaml.safe_load(value)
        for name, value in (part.split(": ") for part in words.split(", "))
    }
    nodes = values.pop("nodes", 1)
    again = replace(given, settings={**given.settings, **values}, resources=given.resources.changed(nodes=nodes))
    known = {name: value for name, value in again.settings.items() if name not in ("optimizer", "num_key_value_heads")}
    told = {"steps": 1, "lr": 1e-5, **known}  # bitsandbytes is not here
    if backend == "automodel":
        AutomodelSettings.read(told)
    else:
        {"trl": TrainSettings, "nemo": NemoSettings}[backend].read(told, kind)
    estimates.refuse(Plan("p", (again,)), profile(memory), workspace)


def test_a_back_end_of_a_users_own_is_offered_what_it_declares(workspace: Workspace) -> None:
    """By no name: what it keeps, what it recomputes and what it splits by are its own words."""
    states = {"fp32": (4, 4, 8), "bf16": (4, 4, 8)}
    for memory, offered in (
        (Memory(states, logits=14.0), "makes it fit"),  # whole replicas: as much on more nodes
        (Memory(states, logits=14.0, sharded="all"), "nodes: 2"),
        (Memory(states, logits=14.0, splits=("pipeline_parallel",)), "options.pipeline_parallel: 2"),
        (Memory(states, logits=14.0, recompute=(True,)), "options.recompute: true"),
    ):
        stage = training("cpt", BASE, gpus=2, batch_size=32, micro_batch_size=1)
        given = replace(stage, backend="mine", memory=memory)
        (found,) = estimates.estimates(Plan("p", (given,)), profile(), workspace)
        least = found.memory.total - (0 if "recompute" in offered else found.memory.weights / 4)
        tight = f"{int(least / 2**20) - 1}M"
        with pytest.raises(InputError, match=offered):
            estimates.refuse(Plan("p", (given,)), profile(tight), workspace)


def sealed(
    workspace: Workspace,
    number: int,
    backend: str,
    metrics: dict[str, Any],
    listed: tuple[hashing.FileDigest, ...] = (),
) -> None:
    """A checkpoint of that model in the store, whose seal says what its training took."""
    entry = workspace.entry("checkpoint", f"{number:016x}" * 4)
    entry.output.mkdir(parents=True)
    (entry.output / "config.json").write_text(json.dumps(LLAMA_1B))
    noted = {"gpu": "NVIDIA H100 80GB HBM3", "trained_by": backend, **metrics}
    seal.write(entry.seal, seal.Seal(seal.SealKind.CHECKPOINT, "hf", "f" * 64, listed, metrics=noted))
    os.utime(entry.seal, (number, number))


@pytest.mark.parametrize("backend", ["trl", "automodel"])
def test_memory_that_was_measured_beats_the_formula(workspace: Workspace, backend: str) -> None:
    """It is shown beside the estimate, and it is what is refused by, and let through by."""
    given = training("cpt", BASE, backend=backend, micro_batch_size=8)
    shape = estimates.step_shape(given, estimate.shape_of("cpt", given.settings, 1, 1))
    (guessed,) = estimates.estimates(Plan("p", (given,)), profile("60G"), workspace)
    assert guessed.measured is None
    assert not guessed.fits
    sealed(workspace, 1, backend, {"step_shape": shape, "peak_memory_bytes": 50 * 2**30, "step_seconds": 2.0})
    sealed(workspace, 2, backend, {"step_shape": shape, "peak_memory_bytes": 51 * 2**30})
    sealed(workspace, 3, "other", {"step_shape": shape, "peak_memory_bytes": 70 * 2**30})
    (found,) = estimates.estimates(Plan("p", (given,)), profile("60G"), workspace)
    assert found.measured == 51 * 2**30
    assert found.seconds == (200.0, 200.0)
    assert "51.00 GiB" in estimates.show([found])
    estimates.refuse(Plan("p", (given,)), profile("60G"), workspace)
    with pytest.raises(InputError, match=r"took 51.00 GiB when it was measured \(estimate: "):
        estimates.refuse(Plan("p", (given,)), profile("48G"), workspace)
    for changes in ({"micro_batch_size": 4}, {"sequence_length": 1024}, {"kind": "sft"}):
        (unlike,) = estimates.estimates(
            Plan("p", (training("cpt", BASE, backend=backend, **{"micro_batch_size": 8, **changes}),)),
            profile(),
            workspace,
        )
        assert unlike.measured is None


def test_seals_are_read_only_where_they_can_be_used(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU whose model is known, and without a model, the store is left alone."""
    looks: list[Workspace] = []
    monkeypatch.setattr(seal_index, "read", lambda where: looks.append(where) or seal_index.Index(None, {}))
    on_cpu = Profile.read({"name": "site", "executor": "slurm", "partitions": {"gpu": {}}})
    estimates.estimates(Plan("p", (training("cpt", BASE),)), on_cpu, workspace)
    estimates.estimates(Plan("p", (training("cpt", replace(BASE, fingerprint="00" * 32)),)), profile(), workspace)
    assert looks == []
    estimates.estimates(Plan("p", (training("cpt", BASE), training("sft", BASE))), profile(), workspace)
    assert looks == [workspace]


def test_of_trainings_that_are_alike_one_configuration_is_read_and_the_newest_count(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = training("cpt", BASE)
    shape = estimates.step_shape(given, estimate.shape_of("cpt", given.settings, 1, 1))
    for number in range(3 * estimates.LOOKED_AT):
        other = number % 3 == 0
        digest = hashing.FileDigest("config.json", 10, f"{'other' if other else 'same'}")
        sealed(workspace, number, "trl", {"step_shape": shape, "step_seconds": 9.0 if other else number}, (digest,))
        if other:
            path = workspace.entry("checkpoint", f"{number:016x}" * 4).output / "config.json"
            path.write_text(json.dumps({**LLAMA_1B, "num_hidden_layers": 3}))
    read: list[Path] = []
    real = estimates._config_in
    monkeypatch.setattr(estimates, "_config_in", lambda output: read.append(output) or real(output))
    (found,) = estimates.estimates(Plan("p", (given,)), profile(), workspace)
    numbers = [number for number in range(3 * estimates.LOOKED_AT) if number % 3][-estimates.LOOKED_AT :]
    assert found.seconds == (statistics.median(numbers) * 100,) * 2
    assert sum("checkpoint-" in str(output) for output in read) == 2


def test_what_can_never_fit_says_so(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"weights .*makes it fit"):
        estimates.refuse(Plan("p", (training("cpt", BASE),)), profile("4G"), workspace)


def test_a_plan_of_an_earlier_run_says_what_its_back_ends_keep(tmp_path: Path) -> None:
    """plan.json as it was before a key of today was there, with tuples as lists."""
    memory = backends.load("nemo").CAPABILITIES.memory
    plan = Plan("p", (replace(training("cpt", BASE, backend="nemo"), memory=memory),))
    plan_file.save(tmp_path / "plan.json", plan)
    assert plan_file.load(tmp_path / "plan.json") == plan
    assert memory is not None
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["stages"][0]["memory"]["states"]["bf16"] == [2, 4, 12]
    assert kept["stages"][0]["memory"]["without"]["transformer_engine"]["recompute"] == ["selective", "full"]
    del kept["stages"][0]["memory"]["buckets"], kept["stages"][0]["memory"]["without"]["transformer_engine"]["adapters"]
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    (stage,) = plan_file.load(tmp_path / "plan.json").stages
    local = replace(memory.without["transformer_engine"], adapters=False)
    assert stage.memory == replace(memory, without={"transformer_engine": local})
    del kept["stages"][0]["memory"]
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    assert plan_file.load(tmp_path / "plan.json").stages[0].memory is None
