"""Continue a run: submit what is missing, adopt what is queued, reuse what is sealed. Twice changes nothing.

``submit`` and ``resume`` are the same thing; submit makes the run first. Exactly once, whatever dies and whenever:

1. the attempt is opened in the store entry (exclusive creation, on disk) and the intent is journaled;
2. sbatch;
3. the id is recorded in the store entry and journaled.

A kill between 1 and 3 leaves an attempt without an id. It is looked up by its unique name in the queue; if it is not
there, its claim is taken from it, and only if that succeeds (no copy of it can start any more) a new attempt follows.
A job of it that shows up later can do nothing but end; the next ``resume`` that meets it cancels it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.core import attempts, claim
from jobs.core.attempts import Attempt
from jobs.core.files import wait_for
from jobs.core.paths import StorePaths
from launch.base.errors import ClusterUnreachable, InputError, RejectedByCluster
from launch.config.profile import Profile
from launch.plan.model import Plan, PlannedStage
from launch.render import refusal, scripts
from launch.render.executors import carrier, refuse_missing
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptState, AttemptStatus, QueueView
from launch.runs.journal import Event, announced
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow
from launch.slurm.reasons import NEVER_SATISFIED
from launch.submit import reuse
from launch.submit.interrupt import Interrupt, Interrupted, deferred
from launch.submit.queue_limit import QueueSlots

VIEW_SECONDS = 5.0
"""How long an answer of the queue is good for finding jobs that live. That a job is not in it proves nothing later."""

SEAL_WAIT_SECONDS = 5.0
"""A job that Slurm calls COMPLETED has sealed; on NFS the seal may take a moment to be seen here."""


_IDS = re.compile(r":(\d+)")
"""Job ids in what squeue says of a dependency: ``afterok:12(unfulfilled),afterok:13(failed)``."""


class Action(StrEnum):
    """What was done for a stage."""

    SUBMITTED = "submitted"
    ADOPTED = "adopted"
    REUSED = "reused"
    LATER = "later"


@dataclass(frozen=True)
class Step:
    """What was done for one stage; ``job`` is the one that later stages wait for (None: sealed, or not yet)."""

    stage: str
    action: Action
    job: str | None
    of_run: str = ""


class Submitter:
    """Brings one run forward on Slurm. Hold ``rundir.locked(run)`` around it."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        profile: Profile,
        gateway: Gateway,
        on_step: Callable[[Step], None] = lambda step: None,
        on_wait: Callable[[str, str], None] = lambda stage, run: None,
        ending: str | None = None,
        relatives: Collection[str] = (),
    ) -> None:
        """``on_wait`` is called with a stage and the run that may be submitting it just now, before that is awaited.
        ``ending``, ``relatives``: see ``launch.submit.queue_limit``."""
        self._run = run
        self._plan = plan
        self._profile = profile
        self._gateway = gateway
        self._on_step = on_step
        self._on_wait = on_wait
        self._interrupt = Interrupt()
        self._queue: QueueView | None = None
        self._jobs: dict[str, str | None] = {}
        self._opened: set[str] = set()
        """Names of the jobs that were announced by this process."""
        self._suspects = reuse.suspects(run, plan)
        # A family that waits for room lets Slurm say when there is none, too.
        limit = sys.maxsize if profile.rolling is None and ending is not None and relatives else profile.rolling
        self._room = QueueSlots(limit, run.id, ending, relatives)
        self.not_looked_for = ""
        """Why it is not known whether jobs are left over that nobody waits for; empty: it is."""

    def advance(self) -> list[Step]:
        """Bring every stage forward, parents first.

        Raises:
            RejectedByCluster, ClusterUnreachable: with what was submitted so far in the journal; ``resume`` goes on.
            Interrupted: Ctrl-C.
        """
        steps: list[Step] = []
        with deferred(self._interrupt):
            if self._room.is_limited:
                self._room.look(self._view(fresh=True).alive(self._announced()[0]), self._run.journal.read())
            for stage in self._plan.stages:
                self._stop_if_interrupted(stage)
                waits = self._room.waits(stage.name, stage.parents)
                step = self._later(stage) if waits else self._bring_forward(stage)
                if step.action is not Action.LATER:
                    self._jobs[stage.name] = step.job
                steps.append(step)
                self._on_step(step)
            self._room.note(self._run.journal)
            try:
                self._cancel_given_up()
            except (RejectedByCluster, ClusterUnreachable) as error:
                self.not_looked_for = error.message  # everything is submitted: that is what is reported
        return steps

    @property
    def has_to_try_again(self) -> bool:
        """See ``launch.submit.queue_limit``."""
        return self._room.falls_to_this_job

    def _later(self, stage: PlannedStage) -> Step:
        self._room.deferred.append(stage.name)
        return Step(stage.name, Action.LATER, None)

    def _stop_if_interrupted(self, stage: PlannedStage) -> None:
        if self._interrupt.pending:
            self._run.journal.write(Event.INTERRUPTED, before=stage.name)
            raise Interrupted

    def _view(self, fresh: bool = False) -> QueueView:
        if self._queue is None or fresh or time.monotonic() - self._queue.asked_at > VIEW_SECONDS:
            self._queue = QueueView(self._gateway.squeue())
        return self._queue

    def _bring_forward(self, stage: PlannedStage) -> Step:
        store = stage.store(self._run.workspace)
        while True:
            if reuse.is_sound(store, thorough=stage.name in self._suspects):
                self._run.journal.write(Event.REUSED, stage=stage.name, store=store.root.name)
                return Step(stage.name, Action.REUSED, None)
            current = attempts.current(store)
            if current is None:
                number = 1
            else:
                found = self._settled(stage, store, current)
                if found.status is AttemptStatus.LIVE:
                    step = self._adopt(stage, store, found)
                    if step is None:
                        continue  # it has gone or changed meanwhile
                    return step
                if store.seal.exists():
                    continue  # sealed while we looked
                self._refuse_foreign(stage, store, current)
                if found.status is AttemptStatus.NEVER_STARTED and not self._bar(store, current):
                    continue  # it was quicker: its claim is there now
                number = current.number + 1
            links = self._profile.links_of(stage.continuation)
            if not self._room.has_for(links) or self._room.leaves_alone(store, current):
                return self._later(stage)
            try:
                step = self._submit(stage, store, number)
            except RejectedByCluster as error:
                if not self._room.may_wait(error):
                    raise
                return self._later(stage)
            if step is not None:
                self._room.take(links)
                return step

    def _settled(self, stage: PlannedStage, store: StorePaths, current: Attempt) -> AttemptState:
        """The standing of an attempt, waited for while another ``overnight`` may be in the middle of its sbatch."""
        said = False
        found = attempt_state.standing(store, current, self._view())
        while found.status is not AttemptStatus.LIVE:
            # In this order, see ledger.standing.
            claims, known = claim.of_attempt(store, current.token), attempts.job_ids(store, current)
            found = attempt_state.standing(store, current, self._view(fresh=True), claims=claims, known=known)
            if found.status is AttemptStatus.ENDED and any(row.state == "COMPLETED" for row in found.rows.values()):
                wait_for(store.seal, SEAL_WAIT_SECONDS)
            if found.status is not AttemptStatus.IN_FLIGHT:
                break
            if not said:
                said = True
                self._on_wait(stage.name, current.run)
            time.sleep(1.0)
            self._stop_if_interrupted(stage)
        return found

    def _refuse_foreign(self, stage: PlannedStage, store: StorePaths, current: Attempt) -> None:
        """Another user's jobs are not in our queue, so nothing can be said of them."""
        if owner := attempts.other_owner(store, current):
            raise InputError(
                f"stage {stage.name!r} was submitted into this workspace by user {owner} (run {current.run})",
                hint="wait for it, or use another --workspace",
            )

    def _bar(self, store: StorePaths, current: Attempt) -> bool:
        """Take the claims of an attempt that never started; False if a job of it has started meanwhile."""
        started = claim.supersede(store, current.token, by=self._run.id, links=current.links)
        if started is None:
            names = list(current.job_names)
            self._run.journal.write(Event.SUPERSEDED, attempt=current.token, names=names, store=store.root.name)
            return True
        return False

    def _cancel_given_up(self) -> None:
        """Jobs of ours that nobody waits for and that only take a place in the queue: those of attempts that were given
        up and whose sbatch got through after all, and copies that wait for a parent that has failed."""
        intents, superseded = self._announced()

        def left_over(view: QueueView) -> list[str]:
            return [row.job_id for row in view.alive(intents) if self._is_left_over(row, intents, superseded)]

        if not superseded and (intents.keys() <= self._opened or not left_over(self._view())):
            return  # as nearly always: no further question, and none at all about a new run
        jobs = left_over(self._view(fresh=True))
        if jobs:
            self._run.journal.write(Event.CANCELLED, stages=[], jobs=jobs, phase="given up")
            self._gateway.scancel(jobs)

    def _announced(self) -> tuple[dict[str, tuple[str, str]], set[str]]:
        """Names of all jobs of this run with stage and attempt, and those that were given up."""
        intents = announced(self._run.journal)
        given_up = (entry.get("names") for entry in self._run.journal.read() if entry["event"] == Event.SUPERSEDED)
        superseded = {str(name) for names in given_up if isinstance(names, list) for name in names}
        intents.update(dict.fromkeys(superseded - intents.keys(), ("", "")))  # of another run
        return intents, superseded

    def _is_left_over(self, row: QueueRow, intents: dict[str, tuple[str, str]], superseded: set[str]) -> bool:
        if row.name in superseded:
            return True
        stage, attempt = intents[row.name]
        if not row.state.is_queued or stage not in self._jobs:
            return False
        store = self._plan.stage(stage).store(self._run.workspace)
        current = attempts.current(store)
        if current is None or current.token != attempt:
            return True
        # Not a spare link of a sealed chain: others may still wait for its end.
        is_known = row.job_id in attempts.job_ids(store, current).values()
        return row.reason == NEVER_SATISFIED and (store.seal.exists() or not is_known)

    def _adopt(self, stage: PlannedStage, store: StorePaths, found: AttemptState) -> Step | None:
        """Take a live attempt for the stage; None if it is not what it was a moment ago."""
        current = found.attempt
        if current.carrier != "slurm":
            raise InputError(
                f"stage {stage.name!r} is being run right now by {', '.join(found.jobs.values()) or current.host} "
                f"(run {current.run})",
                hint="wait for it, or stop it",
            )
        if not self._repointed(stage, found):
            return None
        over = {link for link, row in found.rows.items() if row.state.is_final}
        jobs = dict(found.jobs)
        if current.run == self._run.id:  # only the owner, who holds the lock, writes the attempt's ids
            known = attempts.job_ids(store, current)
            alive: set[str] = set()
            if len(jobs) < current.links:
                alive = {row.job_id for row in self._view(fresh=True).alive(current.job_names)}
            for link in range(current.links):
                if link not in jobs:  # killed between two links of a chain
                    before = [jobs[other] for other in range(link) if jobs[other] in alive]
                    jobs[link] = self._sbatch(stage, store, current, link, before)
                    alive.add(jobs[link])
                elif link not in known:
                    attempts.record_job(store, current, link, jobs[link])
        # Of a chain the last job that is not over: somebody may have cancelled the spare ones.
        job = jobs[max(jobs.keys() - over)]
        self._run.journal.write(
            Event.ADOPTED,
            stage=stage.name,
            attempt=current.token,
            job=job,
            of_run=current.run,
            jobs=sorted(jobs.values()),
        )
        return Step(stage.name, Action.ADOPTED, job, current.run)

    def _repointed(self, stage: PlannedStage, found: AttemptState) -> bool:
        """Let a waiting job whose parents have new jobs wait for those, also if another run submitted it: the work is
        the same. False if it does not wait any more (its old parent failed, and Slurm has just cancelled it)."""
        first = found.rows.get(0)
        if first is None or not first.state.is_queued:
            return True
        wanted = {job for parent in stage.parents if (job := self._jobs.get(parent)) is not None}
        # Not every version and plugin shows "(failed)" beside the id.
        never = first.reason == NEVER_SATISFIED or "failed" in first.dependency
        # An edge more than that leads to the job of a parent that is sealed by now, or to another job with its number.
        waits_for = set(_IDS.findall(first.dependency))
        stands_behind = "afterany" in first.dependency  # another copy of it, see host.sh
        if (wanted == waits_for or (stands_behind and wanted <= waits_for)) and not never:
            return True
        dependency = self._dependency(stage) or ""
        try:
            self._gateway.update_dependency(first.job_id, dependency)
        except RejectedByCluster:
            row = self._view(fresh=True).find(first.name, first.job_id)
            if row is not None and row.state.is_queued:
                raise
            return False
        self._run.journal.write(Event.REPOINTED, stage=stage.name, job=first.job_id, dependency=dependency)
        return True

    def _dependency(self, stage: PlannedStage) -> str | None:
        """Edges to the jobs of parents that are not sealed. A finished stage is never passed to sbatch: ids are purged
        after MinJobAge, and Slurm then takes the edge for satisfied (22.05) or refuses it (24.11)."""
        ids = [job for parent in stage.parents if (job := self._jobs.get(parent)) is not None]
        return "afterok:" + ":".join(dict.fromkeys(ids)) if ids else None

    def _submit(self, stage: PlannedStage, store: StorePaths, number: int) -> Step | None:
        """Open the next attempt and submit it; None if another run opened that number first."""
        refuse_missing([stage.executor])  # before the attempt: resume would have to look for its job
        links = self._profile.links_of(stage.continuation)
        token = attempts.new_token()
        names = tuple(self._profile.job_name.of(self._run.id, stage.name, token, link) for link in range(links))
        stage_dir = str(self._run.paths.stage(stage.name).root)
        attempt = Attempt(number, token, self._run.id, stage.name, stage_dir, "slurm", names)
        scripts.write(self._run, self._plan, stage, self._profile, token, links)
        if not attempts.open_next(store, attempt):
            return None
        self._run.journal.write(Event.INTENT, stage=stage.name, attempt=token, names=list(names), store=store.root.name)
        self._opened.update(names)
        jobs: list[str] = []
        for link in range(links):
            jobs.append(self._sbatch(stage, store, attempt, link, jobs))
        if self._was_given_up(store, attempt):
            self._run.journal.write(Event.CANCELLED, stages=[stage.name], jobs=jobs, phase="given up")
            self._gateway.scancel(jobs)
            return None
        return Step(stage.name, Action.SUBMITTED, jobs[-1], self._run.id)

    def _was_given_up(self, store: StorePaths, attempt: Attempt) -> bool:
        """Whether another ``overnight`` took our attempt for dead because its sbatch took too long."""
        current = attempts.current(store)
        barred = any(found.job == claim.SUPERSEDED for found in claim.of_attempt(store, attempt.token))
        return barred or current is None or current.token != attempt.token

    def _sbatch(
        self, stage: PlannedStage, store: StorePaths, attempt: Attempt, link: int, before: Sequence[str]
    ) -> str:
        """Submit one link, behind *all* that are ``before`` it: cancelling one that waits satisfies ``afterany``,
        too, and a link that waited for that one alone would start beside the first, which is at work.
        """
        if link == 0:
            dependency = self._dependency(stage)
        else:
            dependency = "afterany:" + ":".join(before) if before else None
        request = scripts.request(self._run, stage, self._profile, attempt.token, link, dependency)
        try:
            job = carrier(stage.executor).submit(request, self._gateway)
        except RejectedByCluster as error:
            if link == 0:  # no job was made: close the attempt, so that resume need not wonder about it
                claim.supersede(store, attempt.token, by=attempt_state.REFUSED, links=attempt.links)
            self._note(Event.REFUSED, stage, attempt, link, stderr=error.stderr)
            refusal.explain(error, self._run, stage.name, request.scripts.job(link), self._gateway)
            raise
        except ClusterUnreachable as error:
            self._note(Event.SILENT, stage, attempt, link, error=error.message)
            job = self._look_up(attempt, link, error)
        attempts.record_job(store, attempt, link, job)
        self._note(Event.SUBMITTED, stage, attempt, link, job=job)
        return job

    def _note(self, event: Event, stage: PlannedStage, attempt: Attempt, link: int, **facts: str) -> None:
        self._run.journal.write(event, stage=stage.name, attempt=attempt.token, link=link, **facts)

    def _look_up(self, attempt: Attempt, link: int, error: ClusterUnreachable) -> str:
        """After an ambiguous answer: the job under its unique name, else the error goes up (resume decides later)."""
        row = self._view(fresh=True).find(attempt.job_names[link], None)
        if row is None:
            raise error
        return row.job_id
