"""What became of an attempt: the one place that decides between "running", "ended" and "never started".

The order of trust: a seal, then a claim (made by the job itself), then the queue. Absence from the queue is never
success, and it is "never started" only when the attempt's first claim could be taken from it.
"""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jobs.core import attempts, claim, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths
from jobs.core.verdict import Outcome
from launch.base.lock import process_alive
from launch.slurm.queue import QueueRow

SUBMITTING_SECONDS = 300.0
"""An sbatch in flight on another login node may take this long: our time-out is 180 s, and then the queue is asked for
up to 60 s whether the job is there."""

REFUSED = "refused"
"""Who took the claims of an attempt whose job Slurm has refused."""


class AttemptStatus(StrEnum):
    """What an attempt is doing. ``IN_FLIGHT``: its sbatch may still be on the way; ask again."""

    LIVE = "live"
    ENDED = "ended"
    NEVER_STARTED = "never started"
    IN_FLIGHT = "in flight"


@dataclass(frozen=True)
class AttemptState:
    """An attempt with the job ids that are known of it (by link) and what the queue says of them."""

    attempt: Attempt
    status: AttemptStatus
    jobs: Mapping[int, str]
    rows: Mapping[int, QueueRow]


class QueueView:
    """One answer of squeue, looked up by name."""

    def __init__(self, rows: Iterable[QueueRow]) -> None:
        self.asked_at = time.monotonic()
        self._by_name: dict[str, list[QueueRow]] = defaultdict(list)
        for row in rows:
            if not row.is_refusal:  # the trace of a refused submission is no job
                self._by_name[row.name].append(row)

    def find(self, name: str, job: str | None) -> QueueRow | None:
        """The row of a job by its unique name: of several copies one that lives, else the one whose id we know. Not by
        the id alone: ids are used again."""
        rows = self._by_name.get(name, [])
        return max(rows, key=lambda row: (not row.state.is_final, row.job_id == job), default=None)

    def alive(self, names: Iterable[str]) -> list[QueueRow]:
        """The jobs of these names that have not ended, all copies."""
        rows = (row for name in names for row in self._by_name.get(name, []))
        return [row for row in rows if not row.state.is_final]


def local_job(host: str, pid: int) -> str:
    """Job id of a stage that a process of ``overnight run`` carries."""
    return f"local-{host}-{pid}"


def local_alive(job: str) -> bool:
    """Whether the process behind a local job id is alive; one of another host is taken to be."""
    host, _, pid = job.removeprefix("local-").rpartition("-")
    return host != socket.gethostname() or process_alive(int(pid))


def standing(
    store: StorePaths,
    attempt: Attempt,
    queue: QueueView,
    now: float | None = None,
    claims: list[Claim] | None = None,
    known: Mapping[int, str] | None = None,
) -> AttemptState:
    """Judge an attempt whose store entry has no seal. Reads files and the queue's answer; changes nothing.

    ``claims`` and ``known`` (ids by link) are those of the attempt where they were read already. A caller that acts
    on a job's *absence* from the queue must have read them before the queue was asked: in between a job may have been
    accepted, recorded and started.
    """
    jobs = dict(attempts.job_ids(store, attempt) if known is None else known)
    rows: dict[int, QueueRow] = {}
    claims = claim.of_attempt(store, attempt.token) if claims is None else claims
    started = [found for found in claims if found.job != claim.SUPERSEDED]
    for found in started:
        jobs.setdefault(found.link, found.job)
    if attempt.carrier == "local":
        alive = any(local_alive(job) for job in jobs.values()) or (not jobs and _owner_alive(attempt))
        alive = alive and not _gave_up(attempt, started)
        return AttemptState(attempt, AttemptStatus.LIVE if alive else AttemptStatus.ENDED, jobs, rows)
    for link, name in enumerate(attempt.job_names):
        row = queue.find(name, jobs.get(link))
        if row is not None:
            rows[link] = row
            jobs[link] = row.job_id
    if claims and not started:  # given up; a job of it that is in the queue will do nothing
        return AttemptState(attempt, AttemptStatus.NEVER_STARTED, jobs, rows)
    age = (time.time() if now is None else now) - attempt.time
    # A chain of jobs is whole when its last link is known: who depends on it waits for that one.
    incomplete = len(jobs) < attempt.links and (attempt.links > 1 or not jobs)
    if incomplete and age < SUBMITTING_SECONDS and (_owner_alive(attempt) or _sbatch_alive(attempt)):
        return AttemptState(attempt, AttemptStatus.IN_FLIGHT, jobs, rows)
    if any(not row.state.is_final for row in rows.values()):
        return AttemptState(attempt, AttemptStatus.LIVE, jobs, rows)
    return AttemptState(attempt, AttemptStatus.ENDED if started or rows else AttemptStatus.NEVER_STARTED, jobs, rows)


def _gave_up(attempt: Attempt, started: list[Claim]) -> bool:
    """Whether all starts of a local attempt have said that they ended without a seal: the process that ran them may
    live on, as that of a notebook does."""
    paths = StagePaths(Path(attempt.stage_dir))
    said = [verdict.read(paths.verdict(one.job, one.restart)) for one in started]
    return bool(said) and all(one is not None and one.outcome is not Outcome.DONE for one in said)


def _owner_alive(attempt: Attempt) -> bool:
    """Whether the ``overnight`` that wrote the intent may still be at work; on another host we cannot tell."""
    return attempt.host != socket.gethostname() or process_alive(attempt.pid)


def _sbatch_alive(attempt: Attempt) -> bool:
    """Whether an sbatch of this attempt has outlived the ``overnight`` that started it: its job may come any moment."""
    script = os.fsencode(StagePaths(Path(attempt.stage_dir)).scripts(attempt.token).root / "job")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if script in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue  # it has ended meanwhile
    return False


def was_refused(store: StorePaths, attempt: Attempt) -> bool:
    """Whether Slurm refused the job of an attempt."""
    claims = claim.of_attempt(store, attempt.token)
    return bool(claims) and all((one.job, one.host) == (claim.SUPERSEDED, REFUSED) for one in claims)
