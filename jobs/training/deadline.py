"""When to save and leave: read from files that the watcher on the batch host keeps up to date.

The end of an allocation moves (admins extend it, ``scontrol update EndTime``), so the trainer never computes it: it
reads ``deadline`` (epoch second of the end) again at every step boundary, which costs one stat.
"""

from __future__ import annotations

import time

from jobs.core.paths import StagePaths


class StopRequest:
    """Answers "save and leave at this step boundary?"."""

    def __init__(self, stage: StagePaths, lead_seconds: float) -> None:
        self._stage = stage
        self._lead = lead_seconds
        self._longest_save = 0.0
        self._longest_step = 0.0
        self._last_boundary: float | None = None
        self._mtime: tuple[int, int] | None = None
        self._end: float | None = None
        self.last_reason = ""

    @property
    def lead(self) -> float:
        """Seconds before the end at which to start saving: the configured lead, or 3 x the longest save seen if that
        is more (a slow file system shows only in use)."""
        return max(self._lead, 3 * self._longest_save)

    def saved(self, seconds: float) -> None:
        """Tell how long a save took."""
        self._longest_save = max(self._longest_save, seconds)

    def end(self) -> float | None:
        """Epoch second at which the allocation ends, as last written; None where nothing said so."""
        try:
            status = self._stage.deadline.stat()
        except OSError:
            return self._end
        key = (status.st_mtime_ns, status.st_ino)
        if key != self._mtime:
            try:
                self._end = float(self._stage.deadline.read_text().strip())
                self._mtime = key
            except (OSError, ValueError):
                pass  # torn or being replaced: the value read before stands until the next boundary
        return self._end

    def reason(self, now: float | None = None) -> str | None:
        """Why to stop now, or None. Also measures the time between boundaries: the next step must fit, too."""
        now = time.time() if now is None else now
        if self._last_boundary is not None:
            self._longest_step = max(self._longest_step, now - self._last_boundary)
        self._last_boundary = now
        found = self._reason(now)
        if found is not None:
            self.last_reason = found
        return found

    def _reason(self, now: float) -> str | None:
        if self._stage.stop.exists():
            return "asked to stop"
        end = self.end()
        if end is not None and now + self._longest_step >= end - self.lead:
            return f"the allocation ends in {end - now:.0f} s (lead {self.lead:.0f} s)"
        return None

    def should_stop(self) -> bool:
        return self.reason() is not None
