"""Try a profile: a small job through each executor that it routes to, and what the job's nodes have found."""

from __future__ import annotations

import contextlib
import os
import secrets as tokens
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.core import files
from jobs.core.paths import StagePaths, Workspace
from launch.base.errors import OvernightError, RejectedByCluster
from launch.config.fields import Duration
from launch.config.profile import Continuation, Profile, Resources, partitions_of
from launch.config.profile_fields import KINDS
from launch.config.profile_file import ProfileFile
from launch.inputs import toolkit
from launch.plan.backends import python_of
from launch.plan.model import PlannedStage
from launch.render import containers, scripts, templates
from launch.render.executors import carrier
from launch.runs.rundir import Run
from launch.site import test_only
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow

SIGNAL = "USR1"
ATTEMPT = "probe1"
SECRET, LEFT_OVER, KEPT = "OVERNIGHT_PROBE_TOKEN", "SLURM_OVERNIGHT_PROBE", "OVERNIGHT_PROBE_MARK"
"""Put into the environment of the submission: the first two must not reach the job, the third should."""

FILES_SECONDS = 30.0
"""How long the login node may take to see what a job has written."""


@dataclass(frozen=True)
class ProbePlan:
    """A probe: its executor and what it is to do. ``lead``: how many seconds before its end Slurm sends a signal; None:
    it does not."""

    executor: str
    kind: str
    backend: str
    resources: Resources
    minutes: int
    lead: int | None
    requeue: bool


@dataclass
class Probe:
    """A probe on its way. ``refusal``: why there is no job, ``where`` the line that it is about."""

    plan: ProbePlan
    paths: StagePaths
    stage: PlannedStage
    name: str = ""
    job: str = ""
    refusal: str = ""
    where: str = ""
    row: QueueRow | None = None
    over: bool = False
    notes: dict[str, list[str]] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)


def plans(found: ProfileFile, minutes: int | None, skip: Collection[str]) -> list[ProbePlan]:
    """One for each executor in use, as the kind of job that asks for most. The back end is one with an image or
    modules, if there is one: that tests more."""
    profile = found.profile
    by_executor: dict[str, list[str]] = {}
    for kind in KINDS:
        by_executor.setdefault(profile.executor_for(kind), []).append(kind)
    result = []
    for executor, kinds in by_executor.items():
        kind = max(kinds, key=lambda one: (profile.resources_for(one).gpus_per_node or 0, one == "cpt"))
        wanted = profile.resources_for(kind)
        limits = [profile.partitions[name].max_nodes for name in partitions_of(wanted) if name in profile.partitions]
        most = min([2, *(limit for limit in limits if limit is not None)])
        backend = _backend(profile)
        allowed = minutes or (10 if profile.image_of(backend, wanted) else 1)
        result.append(
            ProbePlan(
                executor=executor,
                kind=kind,
                backend=backend,
                minutes=allowed,
                resources=wanted.changed(nodes=most, time=Duration(str(allowed))),
                lead=None if "signal" in skip else allowed * 60 - 45,
                requeue="requeue" not in skip and profile.continuation is Continuation.REQUEUE,
            )
        )
    return result


def _backend(profile: Profile) -> str:
    known = {name: each for name, each in profile.environments.items() if name != "core"}
    ranked = sorted(known, key=lambda name: (known[name].image is None, not known[name].modules))
    return ranked[0] if ranked else test_only.NAME


def prepare(found: ProfileFile, workspace: Workspace, wanted: Sequence[ProbePlan]) -> list[Probe]:
    """The probes, their files written; nothing is submitted. Raises InputError: a value cannot go into a script."""
    run = Run(Workspace(workspace.probes), tokens.token_hex(3))
    run.paths.stages.mkdir(parents=True)
    toolkit.take(run.workspace, run.paths.toolkit)
    return [_prepare(run, found.profile, plan) for plan in wanted]


def _prepare(run: Run, profile: Profile, plan: ProbePlan) -> Probe:
    python = python_of(plan.backend, profile)
    stage = test_only.stage_of(profile, plan.kind, plan.resources, plan.executor, plan.backend, python)
    stage = replace(stage, name=plan.executor.replace("_", "-"))
    paths = run.paths.stage(stage.name)
    place = paths.scripts(ATTEMPT)
    environment = scripts.environment(profile, stage)
    common = {"stage_dir": paths.root, "boot": run.paths.boot, "environment": environment}
    host = templates.template(
        "probe_host.sh.j2",
        **common,
        core_python=profile.core_python,
        signal=SIGNAL if plan.lead is not None else None,
        requeue=plan.requeue,
    )
    node = templates.template(
        "probe_node.sh.j2",
        **common,
        **scripts.entering(run, stage, profile, ATTEMPT),
        stage_python=python,
        processes=plan.resources.processes_per_node,
    )
    container = scripts.container_of(run, stage, profile)
    text = "" if container is None else containers.environment_text(container)
    scripts.StageScripts(host, node, text).write(place)
    paths.logs.mkdir()
    return Probe(plan, paths, stage)


def environment() -> dict[str, str]:
    """Of the submission: this process's, and what must or must not get into the job."""
    return {**os.environ, SECRET: "not for jobs", LEFT_OVER: "1", KEPT: "1"}


def submit(probes: Sequence[Probe], found: ProfileFile, gateway: Gateway) -> None:
    """Hand each probe to its executor; one that is refused says why and stands back."""
    for probe in probes:
        run = Run(Workspace(probe.paths.root.parents[3]), probe.paths.root.parents[1].name)
        try:
            request = scripts.request(run, probe.stage, found.profile, ATTEMPT, 0, None)
            probe.name = request.name
            if probe.plan.lead is not None:
                sbatch = {**request.sbatch, "signal": f"B:{SIGNAL}@{probe.plan.lead}"}
                request = replace(request, sbatch=sbatch)
            probe.job = carrier(probe.plan.executor).submit(request, gateway)
        except RejectedByCluster as error:
            script = probe.paths.scripts(ATTEMPT).job(0)
            probe.refusal, probe.where = test_only.explained(error, run, probe.stage, found, script, gateway)
            probe.over = True
        except OvernightError as error:
            probe.refusal, probe.over = str(error), True


@contextlib.contextmanager
def cancelled_on_leaving(probes: Sequence[Probe], gateway: Gateway) -> Iterator[None]:
    """Whatever ends the block (Ctrl-C between two submissions, a limit), no job of the probes is left behind."""
    try:
        yield
    finally:
        if not all(probe.over for probe in probes):
            jobs = {probe.job for probe in probes if probe.job and not probe.over}
            with contextlib.suppress(OvernightError):
                # An interrupted sbatch may have made a job whose id never came back; its name is the probe's alone.
                names = {probe.name for probe in probes}
                jobs |= {row.job_id for row in gateway.squeue() if row.name in names and not row.state.is_final}
            gateway.scancel(sorted(jobs))


def wait(
    probes: Sequence[Probe],
    gateway: Gateway,
    poll_seconds: float,
    limit_seconds: float | None,
    on_look: Callable[[Sequence[Probe]], None],
) -> None:
    """Wait until all have ended, or for ``limit_seconds``. ``on_look`` is called after each squeue; these get rarer, up
    to ``poll_seconds``. The files of the jobs are read every second, which asks nothing of Slurm."""
    began = looked = time.monotonic()
    pause = 1.0
    while not all(probe.over for probe in probes):
        time.sleep(1.0)
        now = time.monotonic()
        done = [probe for probe in probes if not probe.over and "left" in _notes(probe.paths.root / "notes")]
        if now - looked >= pause or done:
            _look(probes, gateway)
            on_look(probes)
            looked, pause = now, min(max(1.0, poll_seconds), pause * 1.3)
        if limit_seconds is not None and now - began > limit_seconds:
            return


def _look(probes: Sequence[Probe], gateway: Gateway) -> None:
    try:
        rows = {row.job_id: row for row in gateway.squeue()}
    except OvernightError:  # silent: nothing is known, and nothing is concluded
        return
    for probe in probes:
        if probe.over:
            continue
        row = rows.get(probe.job)
        if row is not None:
            probe.row = row
            probe.over = row.state.is_final
        elif probe.row is not None or "left" in _notes(probe.paths.root / "notes"):
            probe.over = True  # it was there, and Slurm has forgotten it


def collect(probes: Sequence[Probe]) -> None:
    """Read what the jobs have left behind."""
    for probe in probes:
        if probe.job:
            _collect(probe)


def _collect(probe: Probe) -> None:
    """Read what the job has left; the file system may show it a little later."""
    end = time.monotonic() + FILES_SECONDS
    while True:
        probe.notes = _notes(probe.paths.root / "notes")
        with contextlib.suppress(ValueError):
            probe.nodes = [files.read_json(path) for path in sorted(probe.paths.root.glob("node-*.json"))]
        wanted = probe.plan.resources.nodes if probe.notes.get("work", [""])[-1].startswith("0 ") else 0
        if (probe.notes.get("left") and len(probe.nodes) >= wanted) or time.monotonic() >= end or not probe.over:
            return
        time.sleep(0.5)


def _notes(path: Path) -> dict[str, list[str]]:
    """First word of a line -> the rest of each such line."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest.strip())
    return found


def remove(probes: Sequence[Probe]) -> None:
    """Take the files of the probes away."""
    for root in {probe.paths.root.parents[1] for probe in probes}:
        shutil.rmtree(root, ignore_errors=True)


def log_of(probe: Probe) -> Iterator[Path]:
    """Logs of the probe that are not empty, the newest last."""
    with contextlib.suppress(OSError):
        found = [path for path in probe.paths.logs.iterdir() if path.stat().st_size]
        yield from sorted(found, key=lambda path: path.stat().st_mtime)
