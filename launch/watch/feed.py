"""What all watchers of a run know together: the queue is asked once in 15 seconds, however many they are.

The last answer lies in ``watch.json`` of the run, and a watcher that finds it too old asks again, under a lock. A
watcher that may not write there asks for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from jobs.core import files, strict
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.runs.rundir import Run
from launch.status import ask
from launch.status.model import RunStatus, StageStatus, State

POLL_SECONDS = 15.0
LOCK_SECONDS = 60.0
"""An asker that has not answered after so long is gone."""


@dataclass(frozen=True)
class Seen:
    """What was found, and when the queue was asked for it."""

    status: RunStatus
    time: float


class Feed:
    """Of one run."""

    def __init__(self, run: Run, plan: Plan, profile: Profile) -> None:
        self._run, self._plan, self._profile = run, plan, profile
        self._file = run.paths.root / "watch.json"
        self._lock = run.paths.root / "watch.lock"
        self._own: Seen | None = None

    def look(self, now: float | None = None) -> Seen:
        """The newest answer; asks only where that is older than ``POLL_SECONDS`` and nobody else is asking."""
        now = time.time() if now is None else now
        if self._profile.executor == "local":
            return Seen(self._ask(), now)
        known = self._known()
        if known is not None and 0 <= now - known.time < POLL_SECONDS:
            return known
        if not self._take_lock(now):
            return known if known is not None else self._alone(now)
        try:
            found = Seen(self._ask(), now)
            with contextlib.suppress(OSError):
                files.write_atomic(self._file, json.dumps({"time": now, "status": asdict(found.status)}))
            self._own = found
            return found
        finally:
            self._lock.unlink(missing_ok=True)

    def _ask(self) -> RunStatus:
        return ask.look(self._run, self._plan, self._profile)

    def _alone(self, now: float) -> Seen:
        """Where nothing can be shared."""
        if self._own is None or not 0 <= now - self._own.time < POLL_SECONDS:
            self._own = Seen(self._ask(), now)
        return self._own

    def _take_lock(self, now: float) -> bool:
        try:
            if (held := files.state(self._lock)) is not None and now - os.stat(self._lock).st_mtime > LOCK_SECONDS:
                self._lock.unlink(missing_ok=True)
                held = None
            return held is None and files.create_exclusive(self._lock, f"{os.getpid()}\n")
        except OSError:
            return False

    def _known(self) -> Seen | None:
        try:
            found = files.read_json_or_none(self._file)
            return None if found is None else _seen(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            strict.passed_over(f"{self._file}: {error!r}")
            return None


def _seen(value: dict[str, Any]) -> Seen:
    status = dict(value["status"])
    stages = tuple(
        StageStatus(**{**one, "state": State(one["state"]), "avoids": tuple(one["avoids"])})
        for one in status.pop("stages")
    )
    return Seen(RunStatus(stages, **status), float(value["time"]))
