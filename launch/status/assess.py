"""How a run stands: one verdict a stage, from seals, claims, verdicts and progress, one squeue and perhaps one sacct.

Nothing is assumed. A stage is done when it is sealed and failed when its job said so or Slurm says so; a job that the
queue no longer contains, without either, is *lost*; and while the cluster does not respond, only what files prove is
reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.core import attempts, claim, seal, strict, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths
from jobs.core.patience import passes
from jobs.core.progress import Report, recent
from jobs.core.slurm_states import JobState
from jobs.core.validation import SPLIT
from jobs.core.verdict import FailureClass, Outcome
from launch.plan.model import Plan, PlannedStage
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptState, AttemptStatus
from launch.runs.journal import History, last_word, starts_among, verdicts_of
from launch.runs.rundir import Run
from launch.slurm.queue import AccountRow, QueueRow
from launch.slurm.reasons import NEVER_SATISFIED
from launch.status import before_work, model, progress
from launch.status.cluster import Queue, Sacct, no_accounting
from launch.status.model import RunStatus, StageStatus, State, by_slurm, by_verdict


def look(
    run: Run,
    plan: Plan,
    queue: Queue,
    sacct: Sacct = no_accounting,
    only: Iterable[str] | None = None,
) -> RunStatus:
    """Judge every stage, or those of ``only`` (their parents then by their seals alone). ``sacct`` is called at most
    once, and only if it is needed."""
    return _Look(run, plan, queue, only).result(sacct)


BEFORE_IT_BEGAN = " before its work began"


@dataclass(frozen=True)
class _Unclear:
    """An attempt that ended or never started and left no verdict: the accounting database may know."""

    attempt: Attempt
    jobs: frozenset[str]


def _has_failed_here(store: StorePaths, current: Attempt) -> bool:
    """Whether a stage failed whose ``overnight run`` is still there, with the other chains of a sweep."""
    said = last_word(store, current) if current.carrier == "local" else None
    return said is not None and said.outcome is Outcome.FAIL


class _Look:
    def __init__(self, run: Run, plan: Plan, queue: Queue, only: Iterable[str] | None) -> None:
        self._run = run
        self._paths = run.paths
        self._plan = plan
        self._queue = queue
        self._only = None if only is None else set(only)
        self._history = History.read(run.journal)
        self._unclear: dict[str, _Unclear] = {}
        self._never_ran: set[str] = set()
        self._found: dict[str, StageStatus] = {}
        self._responses = self._history.responded_at

    def result(self, sacct: Sacct) -> RunStatus:
        for stage in self._plan.stages:
            if self._only is None or stage.name in self._only:
                self._found[stage.name] = self._stage(stage)
        if self._unclear and not self._queue.unreachable:
            # A minute of grace: the clocks of this machine and of the controller may differ.
            since = min(unclear.attempt.time for unclear in self._unclear.values()) - 60
            self._add_accounting(sacct(since) or [])
        self._explain_skipped()
        self._explain_deferred()
        return RunStatus(
            tuple(self._found.values()), self._history.created_at, self._queue.unreachable, self._responses
        )

    def _stage(self, stage: PlannedStage) -> StageStatus:
        store = stage.store(self._run.workspace)
        if store.seal.exists():
            return self._sealed(stage, store)
        if (found := self._untouched(stage, store)) is not None:
            return found
        current = attempts.current(store)
        if stage.name in self._history.deferred and (current is None or not attempts.job_ids(store, current)):
            return StageStatus(stage.name, State.DEFERRED, "waits for room in the queue")
        if current is None:
            return StageStatus(stage.name, State.NOT_SUBMITTED, "not submitted")
        claims = claim.of_attempt(store, current.token)
        starts = starts_among(claims)
        owner = attempts.other_owner(store, current)
        found = self._judged(stage, store, current, claims, starts, owner)
        of_run = "" if current.run == self._run.id else current.run
        if not of_run and not owner and len(starts) < 2:  # as most are; copies of a thousand cost
            return found
        avoids = _avoided(StagePaths(Path(current.stage_dir)), starts)
        return replace(found, of_run=of_run, continued=max(0, len(starts) - 1), avoids=avoids, owner=owner)

    def _untouched(self, stage: PlannedStage, store: StorePaths) -> StageStatus | None:
        """The short way for what most stages of a long chain are: the job of our last submission waits in the queue,
        and nothing has ever been started for the entry, so there is nothing else to read."""
        names = self._history.names.get(stage.name, [])
        row = _decisive(row for name in names if (row := self._queue.view.find(name, None)) is not None)
        if row is None or not row.state.is_queued or store.claims.exists():
            return None
        return self._waiting(stage, row, started=False, last=[])

    def _sealed(self, stage: PlannedStage, store: StorePaths) -> StageStatus:
        try:
            seal.look(store)
        except seal.SealBroken as error:
            if passes(error):
                return StageStatus(stage.name, State.UNKNOWN, f"its result cannot be read just now: {error}")
            return StageStatus(stage.name, State.LOST, f"its result is damaged: {error}; resume makes it again")
        job, of_run = self._history.jobs.get(stage.name, ("", ""))
        base = StageStatus(stage.name, State.SEALED, "sealed", of_run="" if of_run == self._run.id else of_run)
        if stage.name in self._history.reused:
            return base
        made = progress.worked(self._paths.stage(stage.name))
        end = made.end
        # Of a chain of jobs the one that sealed, not a spare one behind it.
        text = f"{base.text} ({end['note']})" if "note" in end else base.text  # a light seal is labelled
        return replace(
            base, text=text, job=end.get("job", job), elapsed=made.seconds, continued=max(0, len(made.starts) - 1)
        )

    def _judged(
        self,
        stage: PlannedStage,
        store: StorePaths,
        current: Attempt,
        claims: list[Claim],
        starts: list[Claim],
        owner: str,
    ) -> StageStatus:
        """A stage that has an attempt and no seal. ``owner``: another user, in whose queue its job is."""
        paths = StagePaths(Path(current.stage_dir))
        standing = attempt_state.standing(store, current, self._queue.view, claims=claims)
        job = _newest(standing, starts)
        if (self._queue.unreachable or (owner and not standing.rows)) and current.carrier == "slurm":
            return self._without_cluster(stage, paths, starts, job)
        if standing.status is AttemptStatus.LIVE and not _has_failed_here(store, current):
            return self._live(stage, paths, standing, starts)
        if claims and not starts:
            return self._given_up(stage, current, claims[0])
        if standing.status is AttemptStatus.IN_FLIGHT or self._is_just_submitted(store, standing):
            return StageStatus(stage.name, State.SUBMITTING, "is being submitted right now", job=job)
        if starts:
            return self._ended(stage, paths, standing, starts[-1])
        return self._never_started(stage, store, standing)

    def _is_just_submitted(self, store: StorePaths, standing: AttemptState) -> bool:
        """Its id was recorded after the queue had been asked."""
        if standing.status is not AttemptStatus.NEVER_STARTED or not standing.jobs:
            return False
        return store.attempt_jobs(standing.attempt.number).stat().st_mtime >= self._queue.asked_at

    # What is alive

    def _live(self, stage: PlannedStage, paths: StagePaths, standing: AttemptState, starts: list[Claim]) -> StageStatus:
        row = _decisive(standing.rows.values())
        if row is None:  # carried by a process of `overnight run`
            began = starts[-1].time if starts else None
            return self._running(stage, paths, began, _newest(standing, starts), "")
        if row.state.is_queued:
            steps = [report for report in recent(paths.progress) if report.phase != SPLIT]
            last = steps[-1:] if starts else []
            return self._waiting(stage, row, bool(starts), last)
        doing = model.ACTIVE.get(row.state, "running")
        found = self._running(stage, paths, row.start, row.job_id, row.node_list, doing)
        if not row.state.is_running:
            return replace(
                found, state=State.UNKNOWN, text=f"Slurm reports {row.state}, a state that this version does not know"
            )
        return found

    def _running(
        self, stage: PlannedStage, paths: StagePaths, began: float | None, job: str, nodes: str, doing: str = "running"
    ) -> StageStatus:
        now = time.time()
        reports = [report for report in recent(paths.progress) if began is None or report.time >= began]
        base = StageStatus(
            stage.name,
            State.RUNNING,
            f"{doing}, no step reported yet",
            job=job,
            nodes=nodes,
            elapsed=None if began is None else max(0.0, now - began),
        )
        if not reports:
            return base
        last = reports[-1]
        left = progress.seconds_left(reports)
        left = None if left is None else max(0.0, left - (now - last.time))
        quiet = now - last.time
        each = progress.seconds_per_step(reports) or 0.0
        return replace(
            base,
            step=last.step,
            total=last.total,
            loss=last.metrics.get("loss"),
            left=left,
            text=model.running(
                doing, last, left, quiet if quiet > max(60.0, 5 * each) else None, progress.validation_loss(reports)
            ),
        )

    def _waiting(self, stage: PlannedStage, row: QueueRow, started: bool, last: list[Report]) -> StageStatus:
        """``started``: it has run before and waits to resume; ``last`` holds the newest report if there is one."""
        starts_at = row.start if row.start is not None and row.start > time.time() else None
        pending = [parent for parent in stage.parents if self._is_unsealed(parent)]
        never = row.reason == NEVER_SATISFIED
        text = model.waiting(row, pending, starts_at)
        if started:
            text = f"waits to resume{model.at_step(last)}: {text}"
        return StageStatus(
            stage.name,
            State.BLOCKED if never else State.WAITING,
            text,
            job=row.job_id,
            starts_at=starts_at,
            step=last[0].step if last else None,
            total=last[0].total if last else None,
        )

    def _is_unsealed(self, name: str) -> bool:
        found = self._found.get(name)
        if found is not None:
            return found.state is not State.SEALED
        stage = self._plan.stage(name)
        return not stage.store(self._run.workspace).seal.exists()

    # What is over

    def _ended(self, stage: PlannedStage, paths: StagePaths, standing: AttemptState, last: Claim) -> StageStatus:
        """It started, it is not in the queue (any more), and there is no seal."""
        # Of a chain of jobs the last one decides: the first may have handed on, and the second been cancelled.
        row = standing.rows[max(standing.rows)] if standing.rows else None
        base = StageStatus(
            stage.name, State.LOST, "", job=row.job_id if row else last.job, nodes=row.node_list if row else ""
        )
        said = verdict.of_attempt(paths.verdict(last.job, last.restart), last.attempt)
        saved = "" if said is None or said.step is None else f", saved at step {said.step}"
        if said is not None and said.outcome is not Outcome.CONTINUE and said.failure is not FailureClass.KILLED:
            return by_verdict(base, said)
        # A job that we ended says that it was killed; who did it is known here.
        if base.job in self._history.cancelled or (row is not None and row.state is JobState.CANCELLED):
            return replace(base, state=State.CANCELLED, text=f"cancelled{saved}")
        if said is not None and said.outcome is Outcome.FAIL:
            return by_verdict(base, said)
        if row is not None:
            return before_work.explain(by_slurm(base, row.state, saved), paths, before_work.by_queue(row))
        if standing.attempt.carrier == "local":
            return replace(base, text=f"was cut off{saved}")
        self._unclear[stage.name] = _Unclear(standing.attempt, frozenset({last.job}))
        return replace(base, text=f"ended without a verdict{saved}")

    def _given_up(self, stage: PlannedStage, current: Attempt, barred: Claim) -> StageStatus:
        """Slurm refused it, or a ``resume`` took its claims before a job of it had begun."""
        self._never_ran.add(stage.name)
        refused = self._history.refused.get(stage.name)
        if refused is not None and current.run == self._run.id:
            return StageStatus(stage.name, State.FAILED, model.REFUSED, evidence=refused)
        return StageStatus(stage.name, State.SUPERSEDED, f"given up by run {barred.host} before it started")

    def _never_started(self, stage: PlannedStage, store: StorePaths, standing: AttemptState) -> StageStatus:
        self._never_ran.add(stage.name)
        current = standing.attempt
        jobs = list(standing.jobs.values())
        base = StageStatus(stage.name, State.LOST, "", job=jobs[0] if jobs else "")
        if set(jobs) & self._history.cancelled:
            return replace(base, state=State.CANCELLED, text=f"cancelled{BEFORE_IT_BEGAN}")
        if told := verdicts_of(store, current):  # it did start, and its claims are lost
            self._never_ran.discard(stage.name)
            return by_verdict(replace(base, job=told[-1].job), told[-1])
        if standing.rows:
            row = standing.rows[max(standing.rows)]
            found = by_slurm(replace(base, nodes=row.node_list), row.state, BEFORE_IT_BEGAN)
            return before_work.explain(found, StagePaths(Path(current.stage_dir)), before_work.by_queue(row))
        if current.carrier == "local":
            return replace(base, text=f"was cut off{BEFORE_IT_BEGAN}")
        if jobs:
            self._unclear[stage.name] = _Unclear(current, frozenset(jobs))
            return replace(base, text="never began")
        return replace(base, text="its submission was cut off; resume finds out whether there is a job")

    # What cannot be told from the queue

    def _without_cluster(self, stage: PlannedStage, paths: StagePaths, starts: list[Claim], job: str) -> StageStatus:
        """Only what files prove."""
        if not starts:
            return StageStatus(stage.name, State.UNKNOWN, "submitted; not started at the last report", job=job)
        self._hear(paths.deadline(starts[-1].job, starts[-1].restart))
        said = verdict.of_attempt(paths.verdict(starts[-1].job, starts[-1].restart), starts[-1].attempt)
        if said is not None and said.outcome is Outcome.FAIL:
            return by_verdict(StageStatus(stage.name, State.FAILED, "", job=job), said)
        if said is not None:
            at = "" if said.step is None else f" at step {said.step}"
            return StageStatus(stage.name, State.UNKNOWN, f"had saved{at} and was about to resume", job=job)
        found = self._running(stage, paths, starts[-1].time, job, "")
        return replace(found, state=State.UNKNOWN, elapsed=None, left=None, text=f"at the last report: {found.text}")

    def _hear(self, deadline: Path) -> None:
        """A running job rewrites its deadline each time that the controller answers it."""
        try:
            answered = deadline.stat().st_mtime
        except OSError:
            return
        self._responses = max(self._responses or 0.0, answered)

    def _add_accounting(self, rows: list[AccountRow]) -> None:
        """Ids are used again after a while: a row counts if its name is ours, too; of several runs the newest."""
        by_id: dict[str, list[AccountRow]] = {}
        for row in rows:
            by_id.setdefault(row.job_id, []).append(row)
        for name, unclear in self._unclear.items():
            ours = unclear.attempt.job_names
            mine = [row for job in unclear.jobs for row in by_id.get(job, ()) if row.name in ours]
            before = self._found[name]
            if not mine:
                text = f"{before.text}; neither the queue nor the accounting knows its job"
                self._found[name] = replace(before, text=text)
                continue
            last = max(mine, key=lambda row: (row.submitted or 0.0, row.start or 0.0))
            elapsed = last.end - last.start if last.start and last.end else None
            when = BEFORE_IT_BEGAN if name in self._never_ran else ""
            found = by_slurm(replace(before, nodes=last.node_list, elapsed=elapsed), last.state, when)
            paths = StagePaths(Path(unclear.attempt.stage_dir))
            self._found[name] = before_work.explain(found, paths, before_work.by_accounting(last))

    def _explain_skipped(self) -> None:
        """A job that went before it began, below a stage that did not succeed: that is the reason, by any user."""
        for stage in self._plan.stages:
            found = self._found.get(stage.name)
            if stage.name not in self._never_ran or found is None or found.job in self._history.cancelled:
                continue
            above = [name for name in stage.parents if name in self._found and self._found[name].state.is_over]
            if above and found.state in (State.CANCELLED, State.LOST):
                text = f"did not run: {', '.join(above)} {'has' if len(above) == 1 else 'have'} not succeeded"
                self._found[stage.name] = replace(found, state=State.SKIPPED, text=text)

    def _explain_deferred(self) -> None:
        """What waits for room is submitted by a job of the run that ends; where there is none, by nobody."""
        alive = (one for one in self._found.values() if one.job and not one.of_run and one.state is not State.SEALED)
        if not all(one.state.is_over for one in alive):
            return
        for name, found in self._found.items():
            if found.state is State.DEFERRED and not self._queue.unreachable and self._only is None:
                text = "not submitted: it waited for room in the queue, and no job of the run is left to submit it"
                self._found[name] = replace(found, state=State.NOT_SUBMITTED, text=text)


def _newest(standing: AttemptState, starts: list[Claim]) -> str:
    """The job to name: the one that started last, else the first that was submitted."""
    if starts:
        return starts[-1].job
    return standing.jobs[min(standing.jobs)] if standing.jobs else ""


def _avoided(paths: StagePaths, starts: list[Claim]) -> tuple[str, ...]:
    """What the newest job has asked Slurm to leave out for it."""
    try:
        names = strict.content(paths.avoid(starts[-1].job)).decode(errors="replace") if starts else ""
    except (OSError, ValueError):
        return ()
    return tuple(name for name in names.strip().split(",") if name)


def _decisive(rows: Iterable[QueueRow]) -> QueueRow | None:
    """Of the links of a chain the one at work, else the first that waits."""
    alive = [row for row in rows if not row.state.is_final]
    return next((row for row in alive if not row.state.is_queued), alive[0] if alive else None)
