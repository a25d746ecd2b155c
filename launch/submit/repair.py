"""What is wrong with a run that nobody would notice: jobs that can never start or that no journal explains, a lock of a
dead process, stages that are lost, a cluster that does not answer. Each finding names the command that fixes it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from jobs.core import attempts
from launch.base.errors import OvernightError
from launch.plan.model import Plan
from launch.runs import rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow
from launch.slurm.reasons import NEVER_SATISFIED
from launch.status import advice, assess
from launch.status.cluster import Queue, no_accounting
from launch.status.model import RunStatus, State
from launch.submit import cancel


class LeftoverKind(StrEnum):
    """What a finding is about."""

    SILENT = "cluster silent"
    BLOCKED = "blocked job"
    LEFT_OVER = "left-over job"
    UNEXPLAINED = "unexplained job"
    LOCK = "stale lock"
    STAGE = "stage"


@dataclass(frozen=True)
class Leftover:
    """``command`` fixes it; ``is_safe``: ``overnight doctor --fix`` does. ``job``: its id, where it is about one."""

    kind: LeftoverKind
    text: str
    command: str
    is_safe: bool = False
    job: str = ""


def examine(run: Run, plan: Plan, gateway: Gateway | None) -> tuple[list[Leftover], str]:
    """What is wrong, and the next command for the run; changes nothing. ``gateway``: None for a run without Slurm. At
    most two calls of Slurm.

    A cluster without an answer is a finding, and then jobs are not judged.
    """
    found = _lock(run)
    rows: list[QueueRow] = []
    queue = Queue.ask(None)
    if gateway is not None:
        try:
            rows = gateway.squeue()
            queue = Queue.of(rows)
        except OvernightError as error:
            queue = Queue.silent(error)
    stages = assess.look(run, plan, queue, no_accounting if gateway is None else gateway.sacct)
    if stages.silence:
        again = f"overnight doctor {run.id}"
        return [*found, Leftover(LeftoverKind.SILENT, stages.silence.splitlines()[0], again)], f"{again}, later"
    return [*found, *_jobs(run, plan, rows), *_stages(run, stages)], advice.of_run(run, stages)


def fix(run: Run, gateway: Gateway | None, findings: list[Leftover]) -> list[Leftover]:
    """Do what is safe: take a stale lock away, cancel the jobs (one scancel, journaled); what was fixed.

    Raises:
        InputError: another ``overnight`` is at work on the run.
        ClusterUnreachable, RejectedByCluster: the jobs are still there.
    """
    safe = [finding for finding in findings if finding.is_safe]
    jobs = [finding.job for finding in safe if finding.job]
    with rundir.locked(run):  # which takes a stale one over, and then away
        if jobs and gateway is not None:
            run.journal.write(Event.CANCELLED, stages=[], jobs=jobs, phase="doctor")
            gateway.scancel(jobs)
    return safe


def _lock(run: Run) -> list[Leftover]:
    held = rundir.stale_lock(run)
    if held is None:
        return []
    return [
        Leftover(
            LeftoverKind.LOCK,
            f"the lock of a process that is gone: {held}",
            f"rm {shlex.quote(str(run.paths.lock))}",
            True,
        )
    ]


def _jobs(run: Run, plan: Plan, rows: list[QueueRow]) -> list[Leftover]:
    """Living jobs under this run's names that the journal does not explain, or that will never do anything."""
    names = cancel.Names.of(run, plan)
    found = []
    for row in rows:
        stage = None if row.state.is_final else names.stage(row.name)
        if stage is None:
            continue
        about = f"job {row.job_id} of stage {stage!r}"
        command = f"scancel {row.job_id}"
        if row.name not in names.announced:
            found.append(Leftover(LeftoverKind.UNEXPLAINED, f"{about} is in no journal", command, True, row.job_id))
        elif not _is_current(run, plan, *names.announced[row.name]):
            text = f"{about} belongs to an attempt that was replaced"
            found.append(Leftover(LeftoverKind.LEFT_OVER, text, command, True, row.job_id))
        elif row.reason == NEVER_SATISFIED:
            text = f"{about} will never start: a stage that it depends on did not succeed"
            found.append(Leftover(LeftoverKind.BLOCKED, text, command, True, row.job_id))
    return found


def _is_current(run: Run, plan: Plan, stage: str, token: str) -> bool:
    stores = [planned.store(run.workspace) for planned in plan.stages if planned.name == stage]
    current = attempts.current(stores[0]) if stores else None
    return current is not None and current.token == token


def _stages(run: Run, stages: RunStatus) -> list[Leftover]:
    """Those that need their user. A blocked one is told by its job."""
    return [
        Leftover(LeftoverKind.STAGE, f"stage {one.stage!r} is {one.state}: {one.text}", advice.of_stage(run, one))
        for one in stages.of(State.FAILED, State.LOST)
    ]
