"""Cancel stages of a run with everything below them: one scancel, and then the queue is asked whether it worked.

Jobs are found in the queue by their names, which hold run, stage and attempt: so a second copy that Slurm accepted and
a job whose id was never recorded go, too, and a job of another run never does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.core import attempts
from jobs.core.attempts import Attempt
from jobs.core.slurm_states import JobState
from launch.base.errors import ClusterUnreachable
from launch.config.fields import JobName
from launch.plan.model import Plan, PlannedStage
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptStatus, QueueView
from launch.runs.journal import Event, announced
from launch.runs.rundir import Run
from launch.slurm.client import Gateway

VERIFY_SECONDS = 30.0
"""How long to wait for the jobs to go: Slurm gives a running one KillWait (30 s by default) to end by itself."""


@dataclass(frozen=True)
class Cancelled:
    """What was done. ``jobs``: id -> stage; ``left``: ids still in the queue when we stopped looking; ``spared``: stage
    -> run, for jobs that belong to another run; ``theirs``: stage -> user, where only another user can cancel."""

    stages: tuple[str, ...]
    jobs: dict[str, str]
    left: tuple[str, ...]
    spared: dict[str, str]
    theirs: dict[str, str]


def on_slurm(run: Run, plan: Plan, gateway: Gateway, stages: set[str], adopted: bool = False) -> Cancelled:
    """Cancel the jobs of ``stages``. With ``adopted`` also those that another run submitted and this one waits for.

    Raises:
        ClusterUnreachable: the queue cannot be asked, or scancel got no answer; cancelling again is safe.
        RejectedByCluster: likewise, but it will be refused again.
    """
    rows = [row for row in gateway.squeue() if not row.state.is_final]
    names = Names.of(run, plan)
    ours = {row.job_id: names.stage(row.name) for row in rows}
    jobs = {job: name for job, name in ours.items() if name in stages}
    spared: dict[str, str] = {}
    for stage, attempt in _of_other_runs(run, plan, stages):
        theirs = [row.job_id for row in rows if row.name in attempt.job_names]
        if theirs and adopted:
            jobs.update(dict.fromkeys(theirs, stage.name))
        elif theirs:
            spared[stage.name] = attempt.run
    chosen = tuple(stage.name for stage in plan.stages if stage.name in stages)
    jobs = dict(sorted(jobs.items(), key=lambda item: chosen.index(item[1])))
    left: tuple[str, ...] = ()
    if jobs:
        run.journal.write(Event.CANCELLED, stages=list(chosen), jobs=list(jobs), phase="before")
        gateway.scancel(list(jobs))
        left = _verified(gateway, set(jobs), run.id)
        run.journal.write(Event.CANCELLED, stages=list(chosen), jobs=list(jobs), phase="after", left=list(left))
    elif run.profile().rolling is not None:  # a stage that has no job yet must not get one from the end of another
        run.journal.write(Event.CANCELLED, stages=list(chosen), jobs=[], phase="before")
    return Cancelled(chosen, jobs, left, spared, _of_other_users(run, plan, stages - set(jobs.values())))


@dataclass(frozen=True)
class Names:
    """The names of a run's jobs. ``announced``: by the journal, with stage and attempt."""

    announced: Mapping[str, tuple[str, str]]
    _run: str
    _naming: JobName
    _stages: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, plan: Plan) -> Names:
        return cls(announced(run.journal), run.id, run.profile().job_name, tuple(stage.name for stage in plan.stages))

    def stage(self, name: str) -> str | None:
        """The stage whose job has this name; None where it is none of the run."""
        if name in self.announced:
            return self.announced[name][0]
        return self._naming.stage_of(name, self._run, self._stages)


def _of_other_runs(run: Run, plan: Plan, stages: set[str]) -> list[tuple[PlannedStage, Attempt]]:
    found = []
    for stage in plan.stages:
        if stage.name in stages:
            current = attempts.current(stage.store(run.workspace))
            if current is not None and current.run != run.id:
                found.append((stage, current))
    return found


def _of_other_users(run: Run, plan: Plan, stages: set[str]) -> dict[str, str]:
    stores = {stage.name: stage.store(run.workspace) for stage in plan.stages if stage.name in stages}
    opened = {name: attempts.current(store) for name, store in stores.items() if not store.seal.exists()}
    owners = {name: attempts.other_owner(stores[name], one) for name, one in opened.items() if one is not None}
    return {name: owner for name, owner in owners.items() if owner}


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
