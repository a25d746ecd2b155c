"""What became of an attempt: the one place that decides between "running", "ended" and "never started".

The order of trust: a seal, then a claim (made by the job itself), then the queue. Absence from the queue is never
success, and it is "never started" only when the attempt's first claim could be taken from it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from jobs.core import attempts, claim
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StorePaths
from launch.rundir import process_alive
from launch.slurm.queue import QueueRow

SUBMITTING_SECONDS = 240.0
"""An sbatch in flight on another login node may take this long (its own retries: 120 s; our time-out: 180 s)."""


class Fate(StrEnum):
    """What an attempt is doing. ``IN_FLIGHT``: its sbatch may still be on the way; ask again."""

    LIVE = "live"
    ENDED = "ended"
    NEVER_STARTED = "never started"
    IN_FLIGHT = "in flight"


@dataclass(frozen=True)
class Standing:
    """An attempt with the job ids that are known of it (by link) and what the queue says of them."""

    attempt: Attempt
    fate: Fate
    jobs: Mapping[int, str]
    rows: Mapping[int, QueueRow]


class QueueView:
    """One answer of squeue, looked up by id and name."""

    def __init__(self, rows: Iterable[QueueRow]) -> None:
        self._by_name: dict[str, QueueRow] = {}
        self._by_id: dict[str, QueueRow] = {}
        for row in rows:
            if row.is_refusal:  # the trace of a refused submission is no job
                continue
            self._by_id[row.job_id] = row
            # Of two copies of one submission the one that is not over counts.
            known = self._by_name.get(row.name)
            if known is None or known.state.is_final:
                self._by_name[row.name] = row

    def find(self, name: str, job: str | None) -> QueueRow | None:
        """The row of a job: by id if its name is right (ids are used again), else by its unique name."""
        row = self._by_id.get(job) if job else None
        return row if row is not None and row.name == name else self._by_name.get(name)


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
) -> Standing:
    """Judge an attempt whose store entry has no seal. Reads files and the queue's answer; changes nothing.

    ``claims`` are those of the attempt where they have been read already.
    """
    jobs = dict(attempts.job_ids(store, attempt))
    rows: dict[int, QueueRow] = {}
    claims = claim.of_attempt(store, attempt.token) if claims is None else claims
    started = [found for found in claims if found.job != claim.SUPERSEDED]
    for found in started:
        jobs.setdefault(found.link, found.job)
    if attempt.carrier == "local":
        alive = any(local_alive(job) for job in jobs.values()) or (not jobs and _owner_alive(attempt))
        return Standing(attempt, Fate.LIVE if alive else Fate.ENDED, jobs, rows)
    for link, name in enumerate(attempt.job_names):
        row = queue.find(name, jobs.get(link))
        if row is not None:
            rows[link] = row
            jobs[link] = row.job_id
    if any(not row.state.is_final for row in rows.values()):
        return Standing(attempt, Fate.LIVE, jobs, rows)
    if started or rows:
        return Standing(attempt, Fate.ENDED, jobs, rows)
    age = (time.time() if now is None else now) - attempt.time
    if not jobs and age < SUBMITTING_SECONDS and _owner_alive(attempt):
        return Standing(attempt, Fate.IN_FLIGHT, jobs, rows)
    return Standing(attempt, Fate.NEVER_STARTED, jobs, rows)


def _owner_alive(attempt: Attempt) -> bool:
    """Whether the ``overnight`` that wrote the intent may still be at work; on another host we cannot tell."""
    return attempt.host != socket.gethostname() or process_alive(attempt.pid)
