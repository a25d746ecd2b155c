"""``overnight plan --check``: everything that could stop a chain in the night, looked at before a job is made.

Limits, paths, environments, secrets, inputs, room on the disk, and ``sbatch --test-only`` of the very scripts.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from launch.base.errors import InputError
from launch.plan import estimates, limits
from launch.plan.estimates import Estimate
from launch.plan.model import Planned, PlannedStage
from launch.render import provenance
from launch.render.dry_run import RUN
from launch.runs.rundir import Run
from launch.site import check, finding, test_only
from launch.site.finding import Finding, Level
from launch.slurm import ask
from launch.slurm.client import Gateway


def findings(planned: Planned, gateway: Gateway | None) -> list[Finding]:
    """Everything that was looked at. ``gateway``: None for a profile without Slurm."""
    found = [*_limits(planned), *_inputs(planned), *_memory_and_disk(planned)]
    found += check.check(planned.profile, gateway, planned.workspace.root, requests=False)
    found += check.secrets_of(planned.pipeline, planned.pipeline.pipeline.secrets, Level.FAIL)
    found += _images(planned)
    if gateway is not None:
        found += _srun_options(planned, gateway)
        found += check.without_effect(planned.profile, Run(planned.workspace, RUN), planned.plan.stages, "of this plan")
        found += _requests(planned, gateway)
    return found


def _limits(planned: Planned) -> Iterator[Finding]:
    found = list(limits.problems(planned.plan, planned.profile, planned.pipeline))
    positions = limits.marks_of(planned.profile, planned.pipeline)
    for problem in found:
        yield Finding(Level.FAIL, "limits", problem.text, str(positions.value(problem.path)))
    if not found:
        known = len(planned.profile.profile.partitions)
        text = f"{len(planned.plan.stages)} jobs within the limits of the profile's {known} partitions"
        yield Finding(Level.OK, "limits", text if known else "the profile defines no partitions")
    for note in limits.notes(planned.plan, planned.profile, planned.pipeline):
        yield Finding(Level.OK, "limits", note)


def _inputs(planned: Planned) -> Iterator[Finding]:
    for item in planned.plan.fetched:
        level = Level.OK if item.present else Level.FAIL
        rest = "is in the workspace" if item.present else f"is missing: overnight fetch {planned.pipeline.path}"
        yield Finding(level, "input", f"{item.name} ({item.request}) {rest}")
    files = {source.path for stage in planned.plan.stages for source in stage.sources}
    if files:
        yield Finding(Level.OK, "input", f"{len(files)} source files are there and were digested")


def _memory_and_disk(planned: Planned) -> Iterator[Finding]:
    known = (planned.plan, planned.profile.profile, planned.workspace)
    found = estimates.estimates(*known)
    try:
        estimates.refuse(*known, found)
    except InputError as error:
        yield Finding(Level.FAIL, "GPU memory", error.message)
    else:
        fits = [each.stage for each in found if each.memory_limit is not None]
        text = f"{', '.join(fits)}: fits" if fits else "no stage whose model and GPU are both known"
        yield Finding(Level.OK, "GPU memory", text)
    yield _disk(planned, found)


def _disk(planned: Planned, found: list[Estimate]) -> Finding:
    """Of every stage that is not sealed: the finished checkpoint, the saves that stay, and those of the one that needs
    most at a time: two, and the best one where it is selected. Stages follow one another, so these do not add up; where
    they run side by side this is too little."""
    open_stages = {stage.name for stage in planned.plan.stages if not stage.store(planned.workspace).seal.exists()}
    left = [each for each in found if each.stage in open_stages]
    if not left:
        return Finding(Level.OK, "disk", "no size of a checkpoint is known")
    at_a_time = max((2 + _selects(planned, each)) * each.checkpoint.save for each in left)
    needed = at_a_time + sum(each.checkpoint.finished + _kept(planned, each) * each.checkpoint.save for each in left)
    directory = finding.existing(planned.workspace.root)
    free = shutil.disk_usage(directory).free
    quota = planned.profile.profile.quota_bytes_of(planned.workspace.root)
    words = f"{_gb(needed)} needed for {', '.join(each.stage for each in left)}; {directory} has {_gb(free)} free"
    if quota is not None:
        words += f", its quota is {_gb(quota)}"
    level = Level.FAIL if needed > min(free, quota if quota is not None else free) else Level.OK
    return Finding(level, "disk", words)


def _selects(planned: Planned, each: Estimate) -> bool:
    """Whether the best save stays beside the newest."""
    return planned.plan.stage(each.stage).settings.get("select") == "best"


def _kept(planned: Planned, each: Estimate) -> int:
    """Saves of a stage that stay, for a curve or as the pipeline says."""
    stage = planned.plan.stage(each.stage)
    every = stage.settings.get("keep_every")
    return (stage.target_step or 0) // int(every) if every else 0


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _images(planned: Planned) -> Iterator[Finding]:
    """Images that stages or resources name beside those of the environments."""
    images: dict[str, list[str]] = {}
    for stage in planned.plan.stages:
        if stage.resources.image:
            images.setdefault(stage.resources.image, []).append(stage.name)
    for image, names in images.items():
        yield check.image(f"image of {', '.join(names)}", image)


def _srun_options(planned: Planned, gateway: Gateway) -> Iterator[Finding]:
    """What sbatch does not look at: an option that srun does not know would end the job at its start."""
    response = ask.ask(gateway, ["srun", "--help"])
    if response.text is None:
        yield Finding(Level.WARN, "srun", f"no answer: {response.command}: {response.problem}")
        return
    known = set(re.findall(r"--([a-z][a-z0-9-]+)", response.text))
    run = Run(planned.workspace, RUN)
    seen: set[str] = set()
    for stage in planned.plan.stages:
        try:
            options = provenance.of_stage(run, stage, planned.profile, planned.pipeline)
        except InputError:
            continue  # said where its script is tried
        for one in options:
            if one.command == "srun" and one.option not in seen:
                seen.add(one.option)
                if one.option not in known:
                    text = f"`srun --help` has no --{one.option}: {one.remove or one.change}"
                    yield Finding(Level.FAIL, "srun", text, one.where or "")
    if seen <= known:
        yield Finding(Level.OK, "srun", f"{len(seen)} options, all known here")


def _requests(planned: Planned, gateway: Gateway) -> Iterator[Finding]:
    """Every different script as ``sbatch --test-only`` takes it; equal ones are asked about once."""
    run = Run(planned.workspace, RUN)
    groups: dict[str, list[PlannedStage]] = {}
    for stage in planned.plan.stages:
        groups.setdefault(repr((stage.resources, stage.executor, stage.backend)), []).append(stage)
    for stages in groups.values():
        what = f"sbatch: {', '.join(one.name for one in stages)}"
        yield test_only.finding(what, run, stages[0], planned.profile, gateway, pipeline=planned.pipeline)
