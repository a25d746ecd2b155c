"""The journal of a run: append-only JSON lines, each on disk before the step that it announces.

It explains every job that we put into the queue: intents, ids, adoptions, refusals, cancels.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.core import claim, files, strict, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths
from jobs.core.verdict import Verdict


class Event(StrEnum):
    """What happened to a run on the login node."""

    CREATED = "created"
    INTENT = "intent"
    SUBMITTED = "submitted"
    ADOPTED = "adopted"
    REUSED = "reused"
    REFUSED = "refused"
    SILENT = "silent"
    SUPERSEDED = "superseded"
    REPOINTED = "repointed"
    CANCELLED = "cancelled"
    DEFERRED = "deferred"
    INTERRUPTED = "interrupted"


class Journal:
    """Writes and reads one run's journal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: Event, **facts: Any) -> None:
        """Append an entry and wait until it is on disk."""
        line = {"time": time.time(), "event": event.value, "host": socket.gethostname(), "pid": os.getpid(), **facts}
        files.append_json_line(self.path, line)

    def read(self) -> Iterator[dict[str, Any]]:
        """Entries in order, each with its time and event; a torn or damaged line is passed over."""
        for entry in files.read_json_lines(self.path):
            if isinstance(entry.get("event"), str) and isinstance(entry.get("time"), int | float):
                yield entry


def announced(journal: Journal) -> dict[str, tuple[str, str]]:
    """Names of all jobs of a run, each with its stage and attempt."""
    found: dict[str, tuple[str, str]] = {}
    for entry in journal.read():
        if entry["event"] == Event.INTENT and isinstance(names := entry.get("names"), list):
            found.update(dict.fromkeys(map(str, names), (str(entry.get("stage")), str(entry.get("attempt")))))
    return found


@dataclass
class History:
    """By stage name: ``names`` of the newest attempt's jobs, ``jobs``, the newest job with the run that it belongs to
    (empty: this one), ``reused`` ones, and ``refused``, what Slurm said to those. ``cancelled`` holds ids of jobs,
    ``deferred`` stages that wait for room in the queue; ``responded_at`` is the cluster's last answer.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    deferred: set[str] = field(default_factory=set)
    created_at: float | None = None
    responded_at: float | None = None

    @classmethod
    def read(cls, journal: Journal) -> History:
        """Entries of a kind that this version does not know are passed over."""
        found = cls()
        for entry in journal.read():
            try:
                found._add(entry)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                strict.passed_over(f"an entry of {journal.path}: {error!r}")
        return found

    def _add(self, entry: dict[str, Any]) -> None:
        event, stage, now = entry.get("event"), str(entry.get("stage", "")), float(entry["time"])
        if event == Event.CREATED:
            self.created_at = now
        elif event == Event.DEFERRED:
            self.deferred = set(map(str, entry["stages"]))
        elif event == Event.INTENT:
            self.deferred.discard(stage)
            self.names[stage] = list(map(str, entry["names"]))
        elif event in (Event.SUBMITTED, Event.ADOPTED):
            of_run = str(entry.get("of_run", ""))
            self.jobs[stage] = (str(entry["job"]), of_run)
            self.reused.discard(stage)
            self.refused.pop(stage, None)
            self.responded_at = now
        elif event == Event.REUSED:
            if stage not in self.jobs:
                self.reused.add(stage)
        elif event == Event.REFUSED:
            self.refused[stage] = str(entry.get("stderr", "")).strip()
            self.responded_at = now
        elif event == Event.CANCELLED:
            self.cancelled.update(map(str, entry.get("jobs", [])))


def starts_of(store: StorePaths, attempt: Attempt) -> list[Claim]:
    """Starts of an attempt, oldest first."""
    return starts_among(claim.of_attempt(store, attempt.token))


def starts_among(claims: list[Claim]) -> list[Claim]:
    """The starts among the claims of an attempt. A job requeued before its first prologue left the same claim twice."""
    seen: dict[tuple[str, int, int], Claim] = {}
    for found in claims:
        if found.job != claim.SUPERSEDED:
            seen[found.job, found.link, found.restart] = found
    return sorted(seen.values(), key=lambda found: found.order)


def verdicts_of(store: StorePaths, attempt: Attempt) -> list[Verdict]:
    """Verdicts of an attempt in the order of its starts; by their own time where its claims are lost."""
    paths, starts = StagePaths(Path(attempt.stage_dir)), starts_of(store, attempt)
    if not starts:
        return [said for said in verdict.all_of(paths) if said.attempt == attempt.token != ""]
    found = (verdict.of_attempt(paths.verdict(one.job, one.restart), attempt.token) for one in starts)
    return [said for said in found if said is not None]


def last_word(store: StorePaths, attempt: Attempt) -> Verdict | None:
    """The verdict of the newest start of an attempt; None if it has none (yet) or nothing has started."""
    starts, found = starts_of(store, attempt), verdicts_of(store, attempt)[-1:]
    newest = {(one.job, one.restart) for one in starts[-1:]}
    return next((said for said in found if not starts or (said.job, said.restart) in newest), None)
