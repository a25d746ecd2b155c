"""Estimates of a planned chain: the model is found in the store, what cannot fit a GPU is refused with what would."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.core import speed
from jobs.core.paths import Workspace
from launch import estimate
from launch.errors import InputError
from launch.estimate import Checkpoint, Memory, Model, Shape
from launch.fields import memory_bytes
from launch.plan import Plan, PlannedStage
from launch.profile import Profile, Resources
from launch.table import table

PEAK = {
    "a100": 312e12, "h100": 989e12, "h200": 989e12, "gh200": 989e12, "l40s": 362e12, "mi250x": 191.5e12,
}  # fmt: skip
"""Dense bf16 FLOP/s of one GPU (of one die of an MI250X), from the makers' data sheets."""


@dataclass(frozen=True)
class Estimate:
    """What a training stage needs. ``memory_limit`` is that of one GPU; None: the profile does not say it.

    ``seconds``: (least, most), the same number twice where a step of this shape was measured; None: no GPU whose peak
    is known, or not bf16. ``cost``: likewise, in the unit of the partition's ``cost_per_gpu_hour``.
    """

    stage: str
    parameters: int
    memory: Memory
    memory_limit: int | None
    flops_per_step: float
    checkpoint: Checkpoint
    seconds: tuple[float, float] | None
    gpu_hours: tuple[float, float] | None
    segments: tuple[int, int] | None
    cost: tuple[float, float] | None
    model: Model

    @property
    def fits(self) -> bool:
        return self.memory_limit is None or self.memory.total <= self.memory_limit

    def as_json(self) -> dict[str, Any]:
        """For ``overnight plan --json``."""
        shown = {key: value for key, value in asdict(self).items() if key != "model"}
        return {**shown, "memory": {**asdict(self.memory), "total": self.memory.total}, "fits": self.fits}


def estimates(plan: Plan, profile: Profile, workspace: Workspace) -> list[Estimate]:
    """Of every training stage whose model is known: one that is in the store, or comes from one that is."""
    found = []
    seen = measured(workspace)
    for stage in plan.stages:
        model = model_of(plan, stage, workspace) if stage.target_step is not None else None
        if model is not None:
            found.append(_of(stage, stage.settings, stage.resources, model, profile, seen))
    return found


@dataclass(frozen=True)
class Measured:
    """Seconds of a step of a sealed stage."""

    model: Model
    backend: str
    shape: str
    gpu: str
    seconds: float


def measured(workspace: Workspace) -> list[Measured]:
    """Of the stages in the store that noted it; what cannot be read is passed over."""
    found = []
    for path in sorted(workspace.store.glob("checkpoint-*/seal.json")):
        try:
            seal = json.loads(path.read_bytes())
            metrics = seal["metrics"]
            shape, gpu, seconds = metrics[speed.SHAPE], metrics[speed.GPU], float(metrics[speed.SECONDS])
            model = estimate.model_of(json.loads((path.parent / "output" / "hf" / "config.json").read_bytes()))
            if model is not None:
                found.append(Measured(model, str(seal["format"]), str(shape), str(gpu).lower(), seconds))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _seconds_of_a_step(
    stage: PlannedStage, shape: Shape, model: Model, gpu: str, seen: Sequence[Measured]
) -> float | None:
    """The median of what was measured of this model, shape and GPU; None: nothing yet."""
    if stage.kind == "dpo":
        return None
    wanted = speed.step_shape(
        shape.batch, shape.micro_batch, shape.length, shape.precision, shape.recompute, shape.world, shape.tensor,
        shape.pipeline, shape.context,
    )  # fmt: skip
    fitting = [
        each.seconds for each in seen
        if (each.model, each.backend, each.shape) == (model, stage.backend, wanted) and gpu.lower() in each.gpu
    ]  # fmt: skip
    return statistics.median(fitting) if fitting else None


def _of(
    stage: PlannedStage, settings: Mapping[str, Any], resources: Resources, model: Model, profile: Profile,
    seen: Sequence[Measured] = (),
) -> Estimate:  # fmt: skip
    shape = estimate.shape_of(stage.kind, settings, resources.nodes, resources.processes_per_node)
    habits = estimate.habits_of(stage.backend, _versions(stage), settings, stage.memory)
    flops = estimate.step_flops(model, shape)
    memory_limit, gpu, price = _gpu(resources, profile)
    peak = PEAK.get(gpu.lower()) if gpu and shape.precision == "bf16" else None
    seconds = hours = segments = None
    if peak is not None and stage.target_step:
        work = flops * (4 / 3 if shape.recompute == "full" else 1.0) * stage.target_step / (peak * shape.world)
        least, most = habits.utilisation
        seconds = (work / most, work / least)
        step = _seconds_of_a_step(stage, shape, model, gpu or "", seen)
        if step is not None:  # measured: no range any more
            seconds = (step * stage.target_step, step * stage.target_step)
        hours = (seconds[0] * shape.world / 3600, seconds[1] * shape.world / 3600)
        usable = (resources.time_seconds or 0) - profile.lead_seconds
        if usable > 0:
            segments = (math.ceil(seconds[0] / usable), math.ceil(seconds[1] / usable))
    return Estimate(
        stage.name, model.parameters, estimate.memory(model, shape, habits), memory_limit, flops,
        estimate.checkpoint(model, stage.backend, shape.precision), seconds, hours, segments,
        None if hours is None or price is None else (hours[0] * price, hours[1] * price), model,
    )  # fmt: skip


def _gpu(resources: Resources, profile: Profile) -> tuple[int | None, str | None, float | None]:
    """(bytes of one GPU, its model, cost of an hour) where the stage asks for GPUs and the profile says what its
    partition has."""
    partition = profile.partitions.get(resources.partition or "") if resources.gpus_per_node else None
    if partition is None:
        return None, None, None
    memory = None if partition.gpu_memory is None else memory_bytes(partition.gpu_memory)
    return memory, partition.gpu_model, partition.cost_per_gpu_hour


def _versions(stage: PlannedStage) -> dict[str, str]:
    """Whether transformer_engine is there; where the environment cannot be seen (an image) it is taken to be."""
    packages = list(Path(stage.python).parent.parent.glob("lib/python3*/site-packages"))
    absent = packages and not any((path / "transformer_engine").exists() for path in packages)
    return {} if absent else {"transformer_engine": ""}


def model_of(plan: Plan, stage: PlannedStage, workspace: Workspace) -> Model | None:
    """The model that a stage trains, from the ``config.json`` of the nearest checkpoint before it that is there."""
    given = stage.inputs.get("checkpoint") or stage.inputs.get("source")
    while given is not None:
        output = workspace.entry(given.kind, given.fingerprint).output
        for path in (output / "config.json", output / "hf" / "config.json"):
            try:
                return estimate.model_of(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        if not given.is_job:
            return None
        parent = plan.stage(given.stage)
        given = parent.inputs.get("checkpoint") or parent.inputs.get("source")
    return None


def refuse(plan: Plan, profile: Profile, workspace: Workspace, known: Sequence[Estimate] | None = None) -> None:
    """Nothing is submitted that cannot fit.

    Args:
        known: ``estimates`` of the same plan, where they were made already.

    Raises:
        InputError: the stage, what takes the memory, and the smallest change that fits (by estimating again).
    """
    problems = []
    for found in estimates(plan, profile, workspace) if known is None else known:
        if found.fits or found.memory_limit is None:
            continue
        stage = plan.stage(found.stage)
        problems.append(
            f"stage {found.stage!r} needs about {_gib(found.memory.total)} on each GPU, partition "
            f"{stage.resources.partition!r} has {_gib(found.memory_limit)} ({parts(found.memory)}); "
            + _proposal(stage, found.model, profile)
        )
    if problems:
        raise InputError("\n".join(problems))


def _proposal(stage: PlannedStage, model: Model, profile: Profile) -> str:
    for changes, nodes in _candidates(stage, model):
        settings = {**stage.settings, **changes}
        resources = replace(stage.resources, nodes=nodes)
        tried = _of(stage, settings, resources, model, profile)
        if tried.fits:
            words = [f"{name}: {value}" for name, value in changes.items()]
            words += [f"nodes: {nodes}"] if nodes != stage.resources.nodes else []
            return f"with {', '.join(words)} it needs {_gib(tried.memory.total)}"
    return "no smaller micro_batch_size, recomputation, parallelism or number of nodes that was tried makes it fit"


def _candidates(stage: PlannedStage, model: Model) -> Iterator[tuple[dict[str, Any], int]]:
    """Changes to try, the smallest first: (settings, nodes). Only NeMo recomputes and splits a model here."""
    resources, settings = stage.resources, stage.settings
    shape = estimate.shape_of(stage.kind, settings, resources.nodes, resources.processes_per_node)
    rows = shape.micro_batch // (2 if stage.kind == "dpo" else 1)
    micros = [size for size in range(rows - 1, 0, -1) if rows % size == 0]
    yield from (({"micro_batch_size": size}, resources.nodes) for size in micros)
    smallest = {"micro_batch_size": 1}
    if stage.backend == "nemo":
        for recompute in ("selective", "full"):
            yield {"recompute": recompute}, resources.nodes
            yield {**smallest, "recompute": recompute}, resources.nodes
        for nodes in (resources.nodes, *(resources.nodes * times for times in (2, 4, 8))):
            for pipeline in (1, 2, 4, 8):
                for tensor in (1, 2, 4, 8):
                    world = nodes * resources.processes_per_node
                    if (
                        tensor <= resources.processes_per_node and model.groups % tensor == 0
                        and model.layers % pipeline == 0 and world % (tensor * pipeline) == 0
                        and int(settings["batch_size"]) % (world // (tensor * pipeline)) == 0
                    ):  # fmt: skip
                        split = {"tensor_parallel": tensor, "pipeline_parallel": pipeline}
                        yield {**smallest, **split, "recompute": "full"}, nodes
    else:
        for times in (2, 4, 8):
            nodes = resources.nodes * times
            if int(settings["batch_size"]) % (nodes * resources.processes_per_node) == 0:
                yield smallest, nodes


def parts(memory: Memory) -> str:
    """What takes the memory, the largest first."""
    found = sorted(asdict(memory).items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {_gib(value)}" for name, value in found if value >= 2**20)


def show(found: list[Estimate]) -> str:
    """The table of ``overnight plan``; empty without estimates."""
    if not found:
        return ""
    header = ("estimate", "parameters", "per GPU", "of", "hours", "GPU-hours", "cost", "checkpoint", "save")
    rows = [
        [
            each.stage, f"{each.parameters / 1e6:,.1f} M", _gib(each.memory.total),
            _gib(each.memory_limit) if each.memory_limit else "", _range(each.seconds, 3600), _range(each.gpu_hours, 1),
            _range(each.cost, 1), _gib(each.checkpoint.finished), _gib(each.checkpoint.save),
        ]
        for each in found
    ]  # fmt: skip
    return "\n".join(table(header, rows, right=(1, 2, 3, 4, 5, 6, 7, 8)))


def _range(values: tuple[float, float] | None, unit: float) -> str:
    if values is None:
        return ""
    least, most = (f"{value / unit:.2g}" for value in values)
    return least if values[0] == values[1] else f"{least} to {most}"


def _gib(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"
