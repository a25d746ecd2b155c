"""What the journal of a run says of its stages, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launch.journal import Event, Journal


@dataclass
class History:
    """By stage name: ``jobs``, the newest job with the run that it belongs to (empty: this one), ``reused`` ones, and
    ``refused``, what Slurm said to those. ``cancelled`` holds ids of jobs; ``heard_at`` is the cluster's last answer.
    """

    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    created_at: float | None = None
    heard_at: float | None = None

    @classmethod
    def read(cls, journal: Journal) -> History:
        """Entries of a kind that this version does not know are passed over."""
        found = cls()
        for entry in journal.read():
            found._add(entry)
        return found

    def _add(self, entry: dict[str, Any]) -> None:
        event, stage, now = entry.get("event"), str(entry.get("stage", "")), float(entry["time"])
        if event == Event.CREATED:
            self.created_at = now
        elif event in (Event.SUBMITTED, Event.ADOPTED):
            of_run = str(entry.get("of_run", ""))
            self.jobs[stage] = (str(entry["job"]), of_run)
            self.reused.discard(stage)
            self.refused.pop(stage, None)
            self.heard_at = now
        elif event == Event.REUSED:
            if stage not in self.jobs:
                self.reused.add(stage)
        elif event == Event.REFUSED:
            self.refused[stage] = str(entry.get("stderr", "")).strip()
            self.heard_at = now
        elif event == Event.CANCELLED:
            self.cancelled.update(map(str, entry.get("jobs", [])))
