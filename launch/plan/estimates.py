"""Estimates of a planned chain: the model is found in the store, what cannot fit a GPU is refused with what would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import speed, strict
from jobs.core.paths import StorePaths, Workspace
from launch.base.errors import InputError
from launch.base.text import gib, table
from launch.config.fields import memory_bytes
from launch.config.profile import Profile, Resources
from launch.plan import memory as estimate
from launch.plan.memory import Checkpoint, MemoryEstimate, Model, Shape
from launch.plan.model import Plan, PlannedInput, PlannedStage

if TYPE_CHECKING:
    from jobs.core.seal_index import Index, StepTime

PEAK = {
    "a100": 312e12, "h100": 989e12, "h200": 989e12, "gh200": 989e12, "l40s": 362e12, "mi250x": 191.5e12,
}  # fmt: skip
"""Dense bf16 FLOP/s of one GPU (of one die of an MI250X), from the makers' data sheets."""


@dataclass(frozen=True)
class Estimate:
    """What a training stage needs. ``memory_limit`` is that of one GPU; None: the profile does not say it.

    ``measured``: bytes on the GPU that a stage of the same model, shape and GPU took; None: none in the store.
    ``seconds``: (least, most), the same number twice where a step of this shape was measured; None: no GPU whose peak
    is known, or not bf16. ``segments``: starts that this takes. ``cost``: as ``seconds``, in the unit of the
    partition's ``cost_per_gpu_hour``.
    """

    stage: str
    parameters: int
    memory: MemoryEstimate
    measured: float | None
    memory_limit: int | None
    flops_per_step: float
    checkpoint: Checkpoint
    seconds: tuple[float, float] | None
    gpu_hours: tuple[float, float] | None
    segments: tuple[int, int] | None
    cost: tuple[float, float] | None
    model: Model

    @property
    def needs(self) -> float:
        """Bytes on each GPU: what was measured, where something was, and the same reserve as beside an estimate."""
        return self.memory.total if self.measured is None else self.measured + self.memory.reserve

    @property
    def fits(self) -> bool:
        return self.memory_limit is None or self.needs <= self.memory_limit

    def as_json(self) -> dict[str, Any]:
        """For ``overnight plan --json``."""
        shown = {key: value for key, value in asdict(self).items() if key != "model"}
        return {**shown, "memory": {**asdict(self.memory), "total": self.memory.total}, "fits": self.fits}


def estimates(plan: Plan, profile: Profile, workspace: Workspace) -> list[Estimate]:
    """Of every training stage whose model is known: one that is in the store, or comes from one that is."""
    found = []
    seen = Measurements(workspace)
    for stage in plan.stages:
        model = model_of(plan, stage, workspace) if stage.trains else None
        if model is not None:
            found.append(_of(stage, model, profile, seen))
    return found


def of_kept_saves(plan: Plan, found: Sequence[Estimate]) -> list[str]:
    """What the saves that stay take, a line a stage; without a number where the model is not known."""
    sizes = {each.stage: each.checkpoint.save for each in found}
    lines = []
    for stage in plan.stages:
        if (every := stage.settings.get("keep_every")) is None:
            continue
        readers = [other.name for other in plan.stages if "curve" in other.settings and stage.name in other.parents]
        count = None if stage.target_step is None else stage.target_step // every
        text = f"{stage.name}: {'the' if count is None else count} saves of every {every} steps stay"
        text += f", for {', '.join(readers)}" if readers else ""
        if count and stage.name in sizes:
            text += f": {count * sizes[stage.name] / 2**30:.1f} GiB"
        lines.append(f"{text}, until `overnight gc` removes the stage")
    return lines


LOOKED_AT = 100
"""Of so many trainings that are alike, the newest, the measurements count."""


class Measurements:
    """What the trainings in a store have noted. Looked up only where an estimate can use it."""

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace
        self._index: Index | None = None

    def like(self, stage: PlannedStage, shape: Shape, model: Model, gpu: str | None) -> list[StepTime]:
        """Of this model, shape, GPU and back end; what cannot be read is passed over."""
        if gpu is None or self._workspace is None:
            return []
        if self._index is None:
            from jobs.core import seal_index

            self._index = seal_index.read(self._workspace)
        wanted = (step_shape(stage, shape), stage.backend)
        found: list[StepTime] = []
        for kind in self._index.trainings():
            if (kind.shape, kind.backend) == wanted and gpu.lower() in kind.gpu.lower():
                steps = self._index.steps(kind, LOOKED_AT)
                found += self._of_model(steps, model, alike=bool(kind.config))
        return found

    def _of_model(self, steps: list[StepTime], model: Model, alike: bool) -> list[StepTime]:
        """Those that trained ``model``; all of them did or none, where their configurations are ``alike``."""
        assert self._workspace is not None
        found = []
        for step in steps:
            trained = _config_in(StorePaths(self._workspace.store / step.name).output)
            if alike and trained is not None:
                return steps if trained == model else []
            if trained == model:
                found.append(step)
        return found


def _config_in(output: Path) -> Model | None:
    """The model of a checkpoint; None: no configuration there, or an architecture that is not known."""
    for path in (output / "config.json", output / "hf" / "config.json"):
        try:
            return estimate.model_of(strict.read(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def step_shape(stage: PlannedStage, shape: Shape) -> str:
    """As the back end notes it in the seal of the stage."""
    sequences = 2 if stage.kind == "dpo" else 1
    return speed.step_shape(
        shape.batch // sequences,
        shape.micro_batch // sequences,
        shape.length,
        shape.precision,
        shape.recompute,
        shape.world,
        shape.tensor,
        shape.pipeline,
        shape.context,
        speed.also_of(stage.kind, stage.settings),
    )


def _shape(stage: PlannedStage) -> Shape:
    return estimate.shape_of(stage.kind, stage.settings, stage.resources.nodes, stage.resources.processes_per_node)


def _of(stage: PlannedStage, model: Model, profile: Profile, seen: Measurements) -> Estimate:
    shape, keeps, resources = _shape(stage), estimate.with_settings(stage.memory, stage.settings), stage.resources
    shape = replace(shape, lora_targets=shape.lora_targets or keeps.layers)
    flops = estimate.step_flops(model, shape)
    trained = model.layers * model.adapter_parameters(shape.lora_rank, shape.lora_targets)
    memory_limit, gpu, price = gpu_of(resources, profile)
    like = seen.like(stage, shape, model, gpu)
    steps = [each.seconds for each in like if each.seconds is not None]
    peaks = [each.memory for each in like if each.memory is not None]
    peak = PEAK.get(gpu.lower()) if gpu and shape.precision == "bf16" else None
    seconds = hours = segments = None
    if peak is not None and stage.target_step:
        again = 3 / 2 if shape.lora_rank else 4 / 3  # the forward pass once more, beside two or one of frozen weights
        work = flops * (again if shape.recompute == "full" else 1.0) * stage.target_step / (peak * shape.world)
        least, most = estimate.utilisation(keeps)
        seconds = (work / most, work / least)
        if steps:  # measured: no range any more
            import statistics

            seconds = (statistics.median(steps) * stage.target_step,) * 2
        hours = (seconds[0] * shape.world / 3600, seconds[1] * shape.world / 3600)
        usable = (resources.time_seconds or 0) - profile.lead.seconds
        if usable > 0:
            segments = (math.ceil(seconds[0] / usable), math.ceil(seconds[1] / usable))
    return Estimate(
        stage.name,
        model.parameters,
        estimate.memory(model, shape, keeps),
        max(peaks, default=None),
        memory_limit,
        flops,
        estimate.checkpoint(model, keeps, shape.precision, trained),
        seconds,
        hours,
        segments,
        None if hours is None or price is None else (hours[0] * price, hours[1] * price),
        model,
    )


def gpu_of(resources: Resources, profile: Profile) -> tuple[int | None, str | None, float | None]:
    """(bytes of one GPU, its model, cost of an hour) as far as the profile describes the partition of the stage."""
    partition = profile.partitions.get(resources.partition or "") if resources.gpus_per_node else None
    if partition is None:
        return None, None, None
    memory = None if partition.gpu_memory is None else memory_bytes(partition.gpu_memory)
    return memory, partition.gpu_model, partition.cost_per_gpu_hour


def model_of(plan: Plan, stage: PlannedStage, workspace: Workspace) -> Model | None:
    """The model that a stage trains, from the ``config.json`` of the nearest checkpoint before it that is there."""
    given = stage.inputs.get("checkpoint") or stage.inputs.get("source")
    return None if given is None else behind(plan, given, workspace)


def behind(plan: Plan, wanted: PlannedInput, workspace: Workspace) -> Model | None:
    """The model of a checkpoint that a stage reads, from the nearest one at or before it that is there."""
    given: PlannedInput | None = wanted
    while given is not None:
        output = given.store(workspace).output
        if any((output / name).is_file() for name in ("config.json", "hf/config.json")):
            return _config_in(output)
        if not given.is_job:
            return None
        parent = plan.stage(given.stage)
        given = parent.inputs.get("checkpoint") or parent.inputs.get("source")
    return None


_NOTHING_FITS = "no smaller micro_batch_size, recomputation, parallelism or number of nodes that was tried makes it fit"


def refuse(plan: Plan, profile: Profile, workspace: Workspace, known: Sequence[Estimate] | None = None) -> None:
    """Raises InputError: stages that cannot fit, what takes the memory, and the smallest change that fits (by
    estimating again). ``known``: ``estimates`` of the same plan, where they were made already."""
    problems = []
    for found in estimates(plan, profile, workspace) if known is None else known:
        if found.fits or found.memory_limit is None:
            continue
        stage = plan.stage(found.stage)
        problems.append(
            f"stage {found.stage!r} {_words(found)} on each GPU, partition "
            f"{stage.resources.partition!r} has {gib(found.memory_limit)} ({parts(found.memory)}); "
            + (_smaller(stage, found.model, profile, Measurements(workspace), math.inf) or _NOTHING_FITS)
        )
    if problems:
        raise InputError("\n".join(problems))


def _words(found: Estimate) -> str:
    if found.measured is None:
        return f"needs about {gib(found.memory.total)}"
    return f"took {gib(found.measured)} when it was measured (estimate: {gib(found.memory.total)})"


def _smaller(stage: PlannedStage, model: Model, profile: Profile, seen: Measurements, most: float) -> str | None:
    """The first change with which the stage fits and needs at most ``most`` bytes; None: none that was tried."""
    for changes, nodes in _candidates(stage, model):
        smaller = replace(stage, settings={**stage.settings, **changes}, resources=stage.resources.changed(nodes=nodes))
        tried = _of(smaller, model, profile, seen)
        if tried.fits and tried.needs <= most:
            changed = {name: value for name, value in changes.items() if value != stage.settings.get(name)}
            words = [f"{_key(name)}: {_yaml(value)}" for name, value in changed.items()]
            words += [f"nodes: {nodes}"] if nodes != stage.resources.nodes else []
            adapters = " (it trains adapters only)" if "lora_rank" in changed else ""
            return f"with {', '.join(words)} it needs {gib(tried.needs)}{adapters}"
    return None


def _key(name: str) -> str:
    """As a pipeline file has it: what only a back end knows stands among its options."""
    return name if name == "micro_batch_size" else f"options.{name}"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


RANK = 16
"""Rank of adapters that is proposed."""

ACCURACY = 0.15
"""How far an estimate may be from the truth: a change for a stage that ran out of memory has to save more than that."""


def after_out_of_memory(plan: Plan, stage: PlannedStage, profile: Profile, workspace: Workspace) -> str:
    """The change to make where a stage ran out of GPU memory: the first that is estimated to need clearly less; where
    the model is not known, what its back end can do, in the order in which to try it."""
    model = model_of(plan, stage, workspace) if stage.trains else None
    if model is not None:
        seen = Measurements()  # what was measured once did not hold this time
        now = _of(stage, model, profile, seen)
        least = min(now.needs, now.memory_limit or math.inf) * (1 - ACCURACY)
        found = _smaller(stage, model, profile, seen, least)
        if found is not None:
            return f"{found} by the estimate, {gib(now.needs)} without"
    return ", then ".join(_in_general(stage))


def _in_general(stage: PlannedStage) -> list[str]:
    if not stage.trains:  # an evaluation or a conversion: no option of the pipeline makes it smaller
        return [f"GPUs with more memory for {stage.kind} (resources.{stage.kind} of the profile)"]
    keeps, settings = estimate.with_settings(stage.memory, stage.settings), stage.settings
    words = [] if settings.get("micro_batch_size") == 1 else ["halve micro_batch_size down to 1"]
    if keeps.recompute and estimate.recompute_of(settings) != "full":
        words.append(f"{_key('recompute')}: {_yaml(keeps.recompute[-1])}")
    words += [f"{_key(name)}: {2 * int(settings.get(name) or 1)}" for name in keeps.splits]
    return [*words, "GPUs with more memory"] if keeps.splits else [*words, "more nodes, or GPUs with more memory"]


def _candidates(stage: PlannedStage, model: Model) -> Iterator[tuple[dict[str, Any], int]]:
    """Changes to try, the smallest first: (settings, nodes), by what the back end can do."""
    resources, settings = stage.resources, stage.settings
    keeps, shape = estimate.with_settings(stage.memory, stage.settings), _shape(stage)
    rows = shape.micro_batch // (2 if stage.kind == "dpo" else 1)
    micros = [size for size in range(rows - 1, 0, -1) if rows % size == 0]
    yield from (({"micro_batch_size": size}, resources.nodes) for size in micros)
    smallest: dict[str, Any] = {"micro_batch_size": 1}
    kept = [value for value in keeps.recompute if estimate.recompute_of(settings) in ("none", "selective")]
    for value in kept:
        yield {"recompute": value}, resources.nodes
        yield {**smallest, "recompute": value}, resources.nodes
    smallest |= {"recompute": kept[-1]} if kept else {}
    pipelines = (1, 2, 4, 8) if "pipeline_parallel" in keeps.splits else (shape.pipeline,)
    tensors = (1, 2, 4, 8) if "tensor_parallel" in keeps.splits else (shape.tensor,)
    for nodes in (resources.nodes, *(resources.nodes * times for times in (2, 4, 8))):
        world = nodes * resources.processes_per_node
        if int(settings["batch_size"]) % world:  # the planner shares the batch out over all processes
            continue
        for pipeline in pipelines:
            for tensor in tensors:
                if (
                    tensor <= resources.processes_per_node
                    and model.groups % tensor == 0
                    and shape.lora_rank % tensor == 0
                    and model.layers % pipeline == 0
                    and world % (tensor * pipeline * shape.context) == 0
                ):
                    split = {"tensor_parallel": tensor, "pipeline_parallel": pipeline}
                    changed = {name: split[name] for name in keeps.splits if split[name] != (settings.get(name) or 1)}
                    yield {**smallest, **changed}, nodes
        is_whole = not (shape.reference or shape.lora_rank or settings.get("optimizer") in keeps.optimizers)
        if world > 1 and keeps.sharded_by == "shard" and is_whole:
            yield {**smallest, "shard": "full"}, nodes
    if keeps.adapters and not shape.lora_rank:  # last, since it is another training
        whole = {name: value for name, value in keeps.whole.items() if settings.get(name) not in (None, value)}
        yield {**smallest, **whole, "lora_rank": RANK}, resources.nodes


def parts(memory: MemoryEstimate) -> str:
    """What takes the memory, the largest first."""
    found = sorted(asdict(memory).items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {gib(value)}" for name, value in found if value >= 2**20)


def show(found: list[Estimate]) -> str:
    """The table of ``overnight plan``; empty without estimates."""
    if not found:
        return ""
    header = (
        "estimate", "parameters", "per GPU", "measured", "of", "hours", "segments", "GPU-hours", "cost", "checkpoint",
        "save",
    )  # fmt: skip
    rows = [
        [
            each.stage,
            f"{each.parameters / 1e6:,.1f} M",
            gib(each.memory.total),
            gib(each.measured) if each.measured else "",
            gib(each.memory_limit) if each.memory_limit else "",
            _range(each.seconds, 3600),
            _range(each.segments, 1),
            _range(each.gpu_hours, 1),
            _range(each.cost, 1),
            gib(each.checkpoint.finished),
            gib(each.checkpoint.save),
        ]
        for each in found
    ]
    return "\n".join(table(header, rows, right=range(1, len(header))))


def _range(values: tuple[float, float] | None, unit: float) -> str:
    if values is None:
        return ""
    least, most = (f"{value / unit:.2g}" for value in values)
    return least if values[0] == values[1] else f"{least} to {most}"
