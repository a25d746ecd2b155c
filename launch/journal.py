"""The journal of a run: append-only JSON lines, each on disk before the step that it announces.

It explains every job that we put into the queue: intents, ids, adoptions, refusals, cancels.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.core import files


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
        self._path = path

    def write(self, event: Event, **facts: Any) -> None:
        """Append an entry and wait until it is on disk."""
        line = {"time": time.time(), "event": event.value, "host": socket.gethostname(), "pid": os.getpid(), **facts}
        files.append_json_line(self._path, line)

    def read(self) -> Iterator[dict[str, Any]]:
        """Entries in order; a torn last line is passed over."""
        return files.read_json_lines(self._path)
