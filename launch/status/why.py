"""Why a stage stands where it stands: its class, the line that shows it, what was saved, what may still be tried.

From files alone, with one squeue on top where the cluster answers (``launch.status.assess``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.core import attempts, budget, files, progress
from jobs.core.attempts import Attempt
from jobs.core.budget import Ended
from jobs.core.paths import StagePaths
from jobs.core.verdict import FailureClass, Outcome, Verdict
from launch.config.profile import Profile
from launch.plan.model import Plan, PlannedStage
from launch.render import refusal
from launch.runs.journal import verdicts_of
from launch.runs.rundir import Run
from launch.status import advice, remedies
from launch.status.model import FAILURES, RunStatus, StageStatus, State


@dataclass(frozen=True)
class Why:
    """One stage. ``source`` is ``file:line``; ``saved`` the step of the newest save; ``reported`` the newest step that
    was reported; ``set_by`` where the options come from that srun refused; ``remedies``: lines to write where a
    skill was lost; ``retries_*`` are of the class in ``failure`` and None where there is none."""

    stage: str
    state: str
    text: str
    failure: str
    words: str
    evidence: str
    source: str
    set_by: tuple[str, ...]
    job: str
    restart: int | None
    nodes: tuple[str, ...]
    reported: int | None
    saved: int | None
    starts: int
    retries_used: int | None
    retries_allowed: int | None
    avoids: tuple[str, ...]
    stacks: tuple[str, ...]
    next: str
    remedies: tuple[str, ...] = ()

    @property
    def is_calm(self) -> bool:
        """Nothing to explain: it is done, runs, or waits its turn."""
        return _goes_well(self.state) and not self.failure


CONSEQUENCES = frozenset({State.NOT_SUBMITTED, State.SKIPPED})
"""Of a stage that has no reason of its own where another one failed."""


def _goes_well(state: str) -> bool:
    return not State(state).is_over and state != State.UNKNOWN


def explain(run: Run, plan: Plan, profile: Profile, status: RunStatus, only: str | None = None) -> list[Why]:
    """Every stage of the run, or the one named."""
    found = {stage.stage: stage for stage in status.stages}
    chosen = [stage for stage in plan.stages if only in (None, stage.name)]
    return [_explain(run, plan, stage, profile, found[stage.name], status.unreachable) for stage in chosen]


def _explain(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, found: StageStatus, unreachable: str) -> Why:
    store = stage.store(run.workspace)
    current = attempts.current(store)
    paths = run.paths.stage(stage.name) if current is None else StagePaths(Path(current.stage_dir))
    events = list(files.read_json_lines(paths.events))
    told = [] if current is None else verdicts_of(store, current)
    last = told[-1] if told else None
    if last is not None and last.outcome is Outcome.DONE:
        last = None
    evidence, source = (last.evidence, last.source) if last else (found.evidence, found.source)
    refused = [line for line in events if line.get("event") == "not_requeued" and last and line.get("job") == last.job]
    if refused and found.state.is_over:
        evidence = f"Slurm refused to requeue it: {refused[-1].get('answer', '')} (it ended because: {evidence})"
    # Of a stage that goes on the class is that of the start before.
    name = found.failure if found.state.is_over or last is None else last.failure.value
    failure = FailureClass(name) if name else None
    history = _history(events, current, told)
    newest = progress.latest(paths.progress)
    set_by = tuple(refusal.of_command(evidence, run, stage.name))
    return Why(
        stage=stage.name,
        state=found.state.value,
        text=found.text,
        failure="" if failure is None else failure.value,
        words="" if failure is None else FAILURES[failure],
        evidence=evidence,
        source=source,
        set_by=set_by,
        job=last.job if last else found.job,
        restart=last.restart if last else None,
        nodes=(last.nodes or tuple(filter(None, [last.host]))) if last else tuple(filter(None, [found.nodes])),
        reported=newest.step if newest else None,
        saved=next(iter(store.sealed_steps()), None),
        starts=len(history) or found.continued,
        retries_used=budget.spent(history, failure) if failure and history else None,
        retries_allowed=budget.allowed(failure, profile.retries) if failure else None,
        avoids=_avoided(events),
        stacks=_stacks(paths, last),
        next=f"overnight why {run.id} {stage.name}, when the cluster answers again"
        if unreachable
        else advice.of_stage(run, replace(found, evidence=evidence)),
        remedies=remedies.of_stage(plan, stage, run.workspace),
    )


def _history(events: list[dict[str, Any]], current: Attempt | None, told: Iterable[Verdict]) -> list[Ended]:
    began = {
        (line.get("job"), line.get("restart")): int(line.get("step") or 0)
        for line in events
        if line.get("event") == "start" and current and line.get("attempt") == current.token
    }
    return [
        Ended(said.failure, (said.step or 0) > began[said.job, said.restart])
        for said in told
        if (said.job, said.restart) in began and said.outcome is not Outcome.DONE
    ]


def _avoided(events: list[dict[str, Any]]) -> tuple[str, ...]:
    told = [line for line in events if line.get("event") == "avoids"]
    return tuple(map(str, told[-1].get("nodes", []))) if told else ()


def _stacks(paths: StagePaths, last: Verdict | None) -> tuple[str, ...]:
    if last is None:
        return ()
    found = sorted(paths.logs.glob(f"{last.job}_{last.restart}.rank*.stack"))
    return tuple(str(path) for path in found if path.stat().st_size)


def lines(found: Why) -> list[str]:
    """For people: one block a stage."""
    shown = [f"{found.stage}: {found.text}"]
    if found.failure and (not _goes_well(found.state) or found.evidence):
        before = "its start before " if _goes_well(found.state) else ""
        shown.append(f"  class     {before}{found.failure} ({found.words})")
        shown += [f"  shown by  {line}" for line in found.evidence.splitlines()[:4]]
    if found.source:
        shown.append(f"  in        {found.source}")
    shown += [f"  {'set by' if number == 0 else '':8}  {line}" for number, line in enumerate(found.set_by)]
    shown += [f"  stack     {path}" for path in found.stacks]
    if found.job:
        where = f" on {', '.join(found.nodes)}" if found.nodes else ""
        restart = f", restart {found.restart}" if found.restart else ""
        shown.append(f"  job       {found.job}{restart}{where}")
    if found.reported is not None or found.saved is not None:
        kept = "nothing" if found.saved is None else f"step {found.saved}"
        if found.state == State.SEALED:
            kept = "the finished output is sealed"
        shown.append(f"  reached   step {found.reported or 0}; saved: {kept}")
    if found.retries_allowed is not None and found.retries_used is not None:
        used = f"{found.retries_used} of {found.failure}, retries allowed: {found.retries_allowed}"
        shown.append(f"  attempts  {found.starts}; {used}")
    if found.avoids:
        shown.append(f"  excludes {', '.join(found.avoids)}")
    if found.next:
        shown.append(f"  next      {found.next}")
    shown += [f"  {'try' if number == 0 else '':8}  {line}" for number, line in enumerate(found.remedies)]
    return shown


def as_json(run: Run, status: RunStatus, found: list[Why]) -> dict[str, Any]:
    """The same as plain data."""
    return {"run": run.id, "done": status.is_done, "cluster": status.cluster, "stages": [vars(one) for one in found]}
