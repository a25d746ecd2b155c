"""What a plan asks for against what the profile says of its partitions: before any sbatch, with the line to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Positions, Problem, failure
from launch.config.fields import Duration, memory_bytes, words_of
from launch.config.pipeline_file import PipelineFile
from launch.config.profile import Continuation, ExecutorKind, partitions_of
from launch.config.profile_fields import Partition
from launch.config.profile_file import ProfileFile
from launch.plan.model import Plan, PlannedStage


def marks_of(profile: ProfileFile, pipeline: PipelineFile) -> Positions:
    """Places of the profile, and of the pipeline's stages."""
    below, above = profile.positions, pipeline.positions
    texts = {below.file: below.lines, **below.texts, **above.texts}
    keys, values = (
        {**lower, **{path: at for path, at in upper.items() if path[:1] == ("stages",)}}
        for lower, upper in ((below.keys, above.keys), (below.values, above.values))
    )
    return replace(above, keys=keys, values=values, texts=texts)


def refuse(plan: Plan, profile: ProfileFile, pipeline: PipelineFile) -> None:
    """Raises InputError: every stage that is over a limit of its partition, with the line and what to write instead."""
    found = list(problems(plan, profile, pipeline))
    if found:
        raise failure(found, marks_of(profile, pipeline))


def problems(plan: Plan, profile: ProfileFile, pipeline: PipelineFile) -> Iterator[Problem]:
    """Every fault; one that several stages share (a line of the profile) once."""
    seen: set[tuple[KeyPath, str]] = set()
    if profile.profile.executor is ExecutorKind.LOCAL:
        return
    for stage in plan.stages:
        for path, text in _of_stage(stage, profile, pipeline.pipeline.stages):
            if (path, text) not in seen:
                seen.add((path, text))
                yield Problem(path, text)


def notes(plan: Plan, profile: ProfileFile, pipeline: PipelineFile) -> list[str]:
    """What is allowed and worth knowing: time that is split at the limit of the partition, work without saves where it
    may be preempted, GPUs that stay idle where jobs get whole nodes, features that the profile does not know."""
    found: list[str] = []
    if profile.profile.executor is ExecutorKind.LOCAL:
        return found
    for stage in plan.stages:
        found += _of_partition(stage, profile)
        wanted = _wanted(stage, profile, pipeline.pipeline.stages)
        if wanted is not None and wanted != stage.resources.time:
            found.append(
                f"{stage.name}: time {wanted} in segments of {stage.resources.time}, the most of partition "
                f"{stage.resources.partition!r}"
            )
    return found


def _of_partition(stage: PlannedStage, profile: ProfileFile) -> Iterator[str]:
    for name in partitions_of(stage.resources):
        one = profile.profile.partitions.get(name)
        if one is None:
            continue
        if one.preemptible and not stage.trains:
            yield f"{stage.name}: partition {name!r} may take its nodes away, and it has no saves: it starts anew then"
        asked = stage.resources.gpus_per_node or 0
        if one.exclusive and one.gpus and asked < one.gpus:
            yield f"{stage.name}: partition {name!r} gives whole nodes, {one.gpus - asked} of {one.gpus} GPUs stay idle"
        # No refusal: a partition may have nodes of several kinds, and the profile names those of one.
        for word in words_of(stage.resources.constraint or ""):
            if one.features and word not in one.features:
                text = (
                    f"{stage.name}: constraint {word!r} is not a feature that the profile lists for partition {name!r}"
                )
                yield f"{text}; {suggest(word, one.features)}"


def _wanted(stage: PlannedStage, profile: ProfileFile, stages: Mapping[str, Any]) -> Duration | None:
    return profile.profile.resources_for(stage.kind, stages.get(stage.name)).time


@dataclass(frozen=True)
class _Asked:
    """A number that a job asks for, and the most that each partition has; in the words of the file."""

    key: str
    value: float
    text: str
    most: Mapping[str, tuple[float, str] | None]

    @property
    def fits(self) -> bool:
        return any(limit is None or self.value <= limit[0] for limit in self.most.values())


def _of_stage(stage: PlannedStage, profile: ProfileFile, stages: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    known = profile.profile.partitions
    paths = profile.profile.resource_paths(stage.kind, stage.name, stages.get(stage.name))
    names = partitions_of(stage.resources)
    leads = {"lead": profile.profile.lead}
    if profile.profile.signal is not None and stage.launcher != "ray":
        leads["signal.lead"] = profile.profile.signal.lead
    name, lead = max(leads.items(), key=lambda one: one[1].seconds)
    asked_time = stage.resources.time
    if stage.trains and asked_time is not None and asked_time.seconds <= lead.seconds:
        text = f"stage {stage.name!r} has a time of {asked_time} and saves {lead} before its end ({name}): no step fits"
        yield paths.get("time", ("resources",)), f"{text}; write more time, or a shorter {name} in the profile"
    per = [name for name in ("mem-per-cpu", "mem-per-gpu") if profile.profile.sbatch.get(name) not in (None, False)]
    if stage.resources.mem is not None and per and "mem" not in profile.profile.remove:
        text = f"stage {stage.name!r} asks for mem, the profile for --{per[0]} (sbatch), and Slurm takes one of them"
        yield paths.get("mem", ("resources",)), f"{text}: leave mem out, or write remove: [mem] in the profile"
    if not known or not names:
        return
    unknown = [name for name in names if name not in known]
    if unknown:
        for name in unknown:
            text = f"the profile has no partition {name!r}; {suggest(name, list(known))}"
            yield paths["partition"], f"{text}; if the site has it: partitions: {{{name}: {{}}}}"
        return
    for asked in _numbers(stage, {name: known[name] for name in names}):
        if asked.fits:
            continue
        nodes = stage.resources.nodes
        limit = max((most for most in asked.most.values() if most is not None), key=lambda most: most[0])
        others = [name for name, one in known.items() if name not in names and _allows(one, asked, nodes)]
        instead = f"write {asked.key}: {limit[1]}" if limit[0] > 0 else f"leave {asked.key} out"
        instead += f", or partition: {' or '.join(others)}" if others else ""
        of = f"partition {names[0]!r} allows" if len(names) == 1 else f"partitions {', '.join(names)} allow"
        path = paths.get(asked.key, ("resources",))
        yield path, f"stage {stage.name!r} asks for {asked.text}; {of} {limit[1]}: {instead}"
    yield from _links(stage, profile, stages)


_ASKS = {
    "nodes": "{} nodes",
    "gpus_per_node": "{} GPUs a node",
    "cpus": "{} CPUs a node",
    "mem": "{} of memory a node",
    "time": "a time of {}",
}


def _numbers(stage: PlannedStage, partitions: Mapping[str, Partition]) -> Iterator[_Asked]:
    for key, words in _ASKS.items():
        value = getattr(stage.resources, key)
        if value:
            most = {name: _most(one, key, stage.resources.nodes) for name, one in partitions.items()}
            yield _Asked(key, _amount(key, value), words.format(value), most)


def _most(one: Partition, key: str, nodes: int) -> tuple[float, str] | None:
    """What a partition allows a job on so many nodes, as a number and as a file says it; None: it is not known."""
    limits = {"nodes": one.max_nodes, "gpus_per_node": one.gpus, "cpus": one.cpus, "mem": one.memory}
    value = one.longest(nodes) if key == "time" else limits[key]
    return None if value is None else (_amount(key, value), f'"{value}"' if key == "time" else str(value))


def _amount(key: str, value: Any) -> float:
    return value.seconds if key == "time" else memory_bytes(value) if key == "mem" else value


def _allows(one: Partition, asked: _Asked, nodes: int) -> bool:
    """Whether another partition is known to have that much."""
    limit = _most(one, asked.key, nodes)
    return limit is not None and asked.value <= limit[0]


def _links(stage: PlannedStage, profile: ProfileFile, stages: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """A chain of jobs has as much time as its links together, which are submitted together."""
    wanted = _wanted(stage, profile, stages)
    each = stage.resources.time
    if stage.continuation != Continuation.CHAIN.value:
        return
    limit = profile.profile.rolling
    if limit is not None and limit < profile.profile.links:
        text = f"stage {stage.name!r} needs {profile.profile.links} jobs at once (links)"
        yield ("submission",), f"{text}, more than rolling({limit}): write submission: rolling({profile.profile.links})"
    if wanted is None or each is None:
        return
    needed, links = -(-wanted.seconds // each.seconds), profile.profile.links
    if needed > links:
        text = f"stage {stage.name!r} is given {wanted}, and {links} links of {each} are less"
        yield ("links",), f"{text}: write links: {needed}"
