"""Cancel stages of a run with everything below them: one scancel, and then the queue is asked whether it worked.

Jobs are found in the queue by their names, which hold run, stage and attempt: so a second copy that Slurm accepted and
a job whose id was never recorded go, too, and a job of another run never does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.core import attempts
from jobs.core.attempts import Attempt
from jobs.core.slurm_states import JobState
from launch.base.errors import ClusterUnreachable, InputError
from launch.plan.model import Plan, PlannedStage
from launch.render import scripts
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptStatus, QueueView
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow

VERIFY_SECONDS = 30.0
"""How long to wait for the jobs to go: Slurm gives a running one KillWait (30 s by default) to end by itself."""

_REST = re.compile(r"[0-9a-z]{6}(?:-\d{1,3})?\Z")
"""Of a job name what follows run and stage: the attempt's token and the number of the link."""


@dataclass(frozen=True)
class Cancelled:
    """What was done. ``jobs``: id -> stage; ``left``: ids still in the queue when we stopped looking; ``spared``: stage
    -> run, for jobs that belong to another run."""

    stages: tuple[str, ...]
    jobs: dict[str, str]
    left: tuple[str, ...]
    spared: dict[str, str]


def on_slurm(run: Run, plan: Plan, gateway: Gateway, stages: set[str], adopted: bool = False) -> Cancelled:
    """Cancel the jobs of ``stages``. With ``adopted`` also those that another run submitted and this one waits for.

    Raises:
        InputError: a stage was submitted by another user.
        ClusterUnreachable: the queue cannot be asked, or scancel got no answer; cancelling again is safe.
        RejectedByCluster: likewise, but it will be refused again.
    """
    rows = [row for row in gateway.squeue() if not row.state.is_final]
    jobs = {row.job_id: name for row in rows if (name := stage_of(row, run, stages)) is not None}
    spared: dict[str, str] = {}
    for stage, attempt in _of_other_runs(run, plan, stages):
        theirs = [row.job_id for row in rows if row.name in attempt.job_names]
        if theirs and adopted:
            jobs.update(dict.fromkeys(theirs, stage.name))
        elif theirs:
            spared[stage.name] = attempt.run
    _refuse_foreign(run, plan, stages, set(jobs.values()) | spared.keys())
    names = tuple(stage.name for stage in plan.stages if stage.name in stages)
    jobs = dict(sorted(jobs.items(), key=lambda item: names.index(item[1])))
    left: tuple[str, ...] = ()
    if jobs:
        run.journal.write(Event.CANCELLED, stages=list(names), jobs=list(jobs), phase="before")
        gateway.scancel(list(jobs))
        left = _verified(gateway, set(jobs), run.id)
        run.journal.write(Event.CANCELLED, stages=list(names), jobs=list(jobs), phase="after", left=list(left))
    elif run.profile().rolling is not None:  # a stage that has no job yet must not get one from the end of another
        run.journal.write(Event.CANCELLED, stages=list(names), jobs=[], phase="before")
    return Cancelled(names, jobs, left, spared)


def _refuse_foreign(run: Run, plan: Plan, stages: set[str], seen: set[str]) -> None:
    """Jobs that another user submitted are not in the queue that we see, and only he can cancel them."""
    for stage in plan.stages:
        store = stage.store(run.workspace)
        if stage.name not in stages - seen or store.seal.exists() or (current := attempts.current(store)) is None:
            continue
        owner = attempt_state.other_user(store, current)
        if owner and current.carrier == "slurm":
            raise InputError(
                f"stage {stage.name!r} was submitted by user {owner} (run {current.run})",
                hint=f"only {owner} can cancel it, by the same command",
            )


def stage_of(row: QueueRow, run: Run, stages: Iterable[str]) -> str | None:
    """The stage whose job this is, if it is one of this run and these stages."""
    for stage in stages:
        prefix = scripts.job_name(run.id, stage, "", 0)
        if row.name.startswith(prefix) and _REST.match(row.name[len(prefix) :]):
            return stage
    return None


def _of_other_runs(run: Run, plan: Plan, stages: set[str]) -> list[tuple[PlannedStage, Attempt]]:
    found = []
    for stage in plan.stages:
        if stage.name in stages:
            current = attempts.current(stage.store(run.workspace))
            if current is not None and current.run != run.id:
                found.append((stage, current))
    return found


def _verified(gateway: Gateway, jobs: set[str], run: str) -> tuple[str, ...]:
    try:
        return _wait_until_gone(gateway, jobs)
    except ClusterUnreachable as error:
        error.message += f"\n  scancel was accepted for {', '.join(sorted(jobs))}; whether they are gone is not known"
        error.hint = f"overnight cancel {run}, when the cluster answers again"
        raise


def _wait_until_gone(gateway: Gateway, jobs: set[str]) -> tuple[str, ...]:
    """Ask the queue until none of ``jobs`` is alive; what is left after ``VERIFY_SECONDS``.

    A job that saved on the way out may have put itself back into the queue before it was dead: it is cancelled again.
    """
    end = time.monotonic() + VERIFY_SECONDS
    pause = 0.25
    while True:
        alive = [row for row in gateway.squeue() if row.job_id in jobs and not row.state.is_final]
        if not alive:
            return ()
        if time.monotonic() >= end:
            return tuple(row.job_id for row in alive)
        gateway.scancel([row.job_id for row in alive if row.state is not JobState.COMPLETING])
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def here(run: Run, plan: Plan, stages: set[str]) -> list[str]:
    """Ask the stages that a process of ``overnight run`` carries to save and leave at their next step; their names."""
    asked = []
    for stage in plan.stages:
        store = stage.store(run.workspace)
        current = attempts.current(store) if stage.name in stages and not store.seal.exists() else None
        if current is None or current.carrier != "local" or current.run != run.id:
            continue
        if attempt_state.standing(store, current, QueueView(())).status is AttemptStatus.LIVE:
            run.paths.stage(stage.name).stop.touch()
            run.journal.write(Event.CANCELLED, stages=[stage.name], jobs=[], phase="before")
            asked.append(stage.name)
    return asked
