"""``submission: rolling(n)``: at most n jobs of a run are in the queue; each of them that ends submits what is next.

For sites that limit how many jobs a user may have submitted (MaxSubmitJobs). No daemon: the end of a job runs the same
``resume`` that a user would, except that it leaves alone whatever has had a job before. A job that ends is itself still
in the queue, so Slurm may say that there are too many: then the end of another one does it. The last one waits until
those that ended beside it have left, so as long as its nodes may call sbatch the run goes on by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jobs.core import attempts
from jobs.core.attempts import Attempt
from jobs.core.paths import StorePaths
from launch.base.errors import RejectedByCluster
from launch.runs.journal import Event, Journal
from launch.slurm import refusals
from launch.slurm.queue import QueueRow
from launch.slurm.reasons import NEVER_SATISFIED


class QueueSlots:
    """How many more jobs of a run may be submitted, and which stages have to wait for that."""

    def __init__(self, limit: int | None, run: str, ending: str | None = None, relatives: Collection[str] = ()) -> None:
        """
        Args:
            limit: None: as many as there are.
            ending: the job of the run that is at its end and does this submission.
            relatives: runs of the same family.
        """
        self._limit = limit
        self._runs = {run, *relatives}
        self._ending = ending
        self._taken = 0
        self._refused = False
        self._cancelled: set[str] = set()
        self.deferred: list[str] = []

    @property
    def is_limited(self) -> bool:
        return self._limit is not None

    def look(self, alive: Iterable[QueueRow], journal: Iterable[Mapping[str, Any]]) -> None:
        """Jobs of the run that are in the queue and have their end before them, and what was cancelled."""
        leaving = {self._ending}
        for entry in journal:
            if entry["event"] == Event.CANCELLED:
                self._cancelled.update(entry["stages"])
            elif entry["event"] == Event.DEFERRED and entry.get("by") is None:
                self._cancelled.difference_update(entry["stages"])  # resumed by the user since
            elif entry["event"] == Event.DEFERRED:
                leaving.add(entry["by"])
        self._taken = sum(row.job_id not in leaving and row.reason != NEVER_SATISFIED for row in alive)

    def note(self, journal: Journal) -> None:
        """Write down which stages wait, if any."""
        if self.deferred:
            journal.write(Event.DEFERRED, stages=self.deferred, by=self._ending)

    def has_for(self, jobs: int) -> bool:
        return self._limit is None or (not self._refused and self._taken + jobs <= self._limit)

    def take(self, jobs: int) -> None:
        self._taken += jobs

    def leaves_alone(self, store: StorePaths, current: Attempt | None) -> bool:
        """Whether a stage has had a job in this run or family: what failed or was cancelled is the user's to resume."""
        if self._ending is None or current is None or current.run not in self._runs:
            return False
        return bool(attempts.job_ids(store, current))

    def waits(self, stage: str, parents: Iterable[str]) -> bool:
        """Whether a stage above waits, so that there is no job yet to depend on; or it was cancelled before it had a
        job, which the end of another job does not undo."""
        return any(parent in self.deferred for parent in parents) or (
            self._ending is not None and stage in self._cancelled
        )

    def may_wait(self, error: RejectedByCluster) -> bool:
        """Whether a refusal means that there are too many jobs in the queue, and one of ours will end and go on."""
        if self._limit is None or not refusals.is_submit_limit(error.stderr) or not (self._taken or self._ending):
            return False
        self._refused = True
        return True

    @property
    def falls_to_this_job(self) -> bool:
        """Whether nobody else will submit what Slurm has just refused: jobs that ended beside this one have yet to
        leave the queue."""
        return self._refused and self._ending is not None and self._taken == 0
