"""The chains of a sweep brought forward: at most ``at_once`` of them are in the queue, and no process waits for that.

A chain that has no room yet is a run without jobs. Each job of the family runs ``resume --from-job`` as its last act,
as with ``submission: rolling(n)`` (``launch.submit.queue_limit``): where fewer chains than allowed have jobs in the
queue, it submits the next ones. What failed or was cancelled is left to the user, also where several chains share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.core import attempts
from jobs.core.verdict import Outcome
from launch.plan.model import Plan
from launch.runs.family import Family, Member, is_cancelled
from launch.runs.journal import Event, announced, last_word
from launch.runs.rundir import Run, locked
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow
from launch.slurm.reasons import NEVER_SATISFIED
from launch.submit.submitter import Action, Step, Submitter


@dataclass(frozen=True)
class MemberStep:
    """What was done for one chain. ``state``: ``submitted``, ``later`` (no room yet) or ``done``."""

    member: Member
    state: str
    steps: tuple[Step, ...] = ()

    @property
    def jobs(self) -> int:
        """How many jobs were made for it now; what it shares with another chain is not among them."""
        return sum(step.action is Action.SUBMITTED for step in self.steps)


class FamilySubmitter:
    """Brings one family forward. Hold ``launch.runs.family.locked`` around it."""

    def __init__(
        self, family: Family, gateway: Gateway, on_member: Callable[[MemberStep], None], ending: str | None = None
    ) -> None:
        """``ending``: the job of the family that is at its end and does this."""
        self._family = family
        self._gateway = gateway
        self._on_member = on_member
        self._ending = ending
        self.has_to_try_again = False
        """Whether Slurm had no room for a job, and no other job will submit it."""

    def advance(self) -> list[MemberStep]:
        """Bring every chain forward for which there is room, in the order of the file.

        Raises:
            InputError: a run of the family is missing or damaged.
            RejectedByCluster, ClusterUnreachable, Interrupted: as ``Submitter.advance``.
        """
        record, entries = self._family.record, list(self._family.journal.read())
        if self._ending is not None and is_cancelled(entries):
            return []
        runs = {member.run: Run(self._family.workspace, member.run) for member in record.members}
        busy = self._busy(runs, entries) if record.at_once is not None else set()
        done: list[MemberStep] = []
        for member in record.members:
            run = runs[member.run]
            step = self._member(member, run, run.plan(), record.at_once, busy)
            if any(one.action in (Action.SUBMITTED, Action.ADOPTED) for one in step.steps):
                busy.add(member.run)
            done.append(step)
            self._on_member(step)
        later = [step.member.run for step in done if step.state == "later"]
        if later or self._ending is None:  # also that a user has resumed what was cancelled
            self._family.journal.write(Event.DEFERRED, runs=later, by=self._ending)
        return done

    def _member(self, member: Member, run: Run, plan: Plan, limit: int | None, busy: set[str]) -> MemberStep:
        if all(stage.store(run.workspace).seal.exists() for stage in plan.stages) and self._ending is not None:
            return MemberStep(member, "done")
        if self._ending is not None and announced(run.journal):
            return MemberStep(member, "submitted")  # its own jobs bring it forward, or its user
        if limit is not None and member.run not in busy and len(busy) >= limit:
            return MemberStep(member, "later")
        relatives = {other.run for other in self._family.record.members}
        profile = run.profile()
        with locked(run):
            submitter = Submitter(run, plan, profile, self._gateway, ending=self._ending, relatives=relatives)
            steps = submitter.advance()
        self.has_to_try_again |= submitter.has_to_try_again
        is_done = all(step.action is Action.REUSED for step in steps)
        return MemberStep(member, "done" if is_done else "submitted", tuple(steps))

    def _busy(self, runs: Mapping[str, Run], entries: Iterable[Mapping[str, Any]]) -> set[str]:
        """Runs with jobs in the queue that have their end before them."""
        leaving = {self._ending} | {entry.get("by") for entry in entries if entry["event"] == Event.DEFERRED}
        alive = {row.name for row in self._gateway.squeue() if _counts(row) and row.job_id not in leaving}
        found = set()
        for name, run in runs.items():
            waiting = {stage for job, (stage, _) in announced(run.journal).items() if job in alive}
            if waiting and waiting - _below_failed(run, run.plan()):
                found.add(name)
        return found


def _below_failed(run: Run, plan: Plan) -> set[str]:
    """Stages that failed and those below them: Slurm calls the jobs of these hopeless only after the failed one has
    left the queue, which this look comes before."""
    failed = set()
    for stage in plan.stages:
        store = stage.store(run.workspace)
        current = None if store.seal.exists() else attempts.current(store)
        said = None if current is None else last_word(store, current)
        if said is not None and said.outcome is Outcome.FAIL:
            failed.add(stage.name)
    return plan.below(failed)


def _counts(row: QueueRow) -> bool:
    return not row.state.is_final and not row.is_refusal and row.reason != NEVER_SATISFIED
