"""When to save and leave: read from files that the watcher on the batch host keeps up to date.

The end of an allocation moves (admins extend it, ``scontrol update EndTime``), so the trainer never computes it: it
reads ``deadline`` (epoch second of the end) again at every step boundary, which costs one stat.
"""

from __future__ import annotations

import time
from pathlib import Path

from jobs.core import progress
from jobs.core.paths import StagePaths

SAVE_SECONDS = 600.0
"""Without ``save_every`` at least so long between two saves."""

SAVES_OF_AN_ALLOCATION, SAVES_OF_TIME = 8, 20
"""Without ``save_every`` about so many saves of an allocation, and at most this part of the time spent on them."""

LAST_SAVE_SECONDS = 60.0
"""More work than this is saved once more after the last step: writing the output may take longer than is left."""


class StopRequest:
    """Answers "save and leave at this step boundary?"."""

    _longest_save = _longest_seal = _allocation = 0.0
    _saved_at: float | None = None
    _looks = True

    def __init__(self, stage: StagePaths, deadline: Path, lead_seconds: float, looks: bool = True) -> None:
        """``deadline``: that of this start. ``looks``: whether this process looks at the files; one of all does, and
        they agree at every step anyway."""
        self._stage = stage
        self._deadline = deadline
        self._lead = lead_seconds
        self._looks = looks
        self._longest_step = 0.0
        self._last_boundary: float | None = None
        self._mtime: tuple[int, int] | None = None
        self._end: float | None = None
        self.last_reason = ""

    @property
    def lead(self) -> float:
        """Seconds before the end at which to start saving: the configured lead, or 3 x the longest save seen with its
        seal if that is more (a slow file system shows only in use)."""
        return max(self._lead, 3 * (self._longest_save + self._longest_seal))

    def saved(self, seconds: float) -> None:
        """Tell how long the training stood for a save."""
        self._longest_save = max(self._longest_save, seconds)
        self._saved_at = time.monotonic()

    def sealed(self, seconds: float) -> None:
        """Tell how long the seal of a save took beside the training."""
        self._longest_seal = max(self._longest_seal, seconds)

    def save_due(self, step: int, steps: int, every: int | None) -> bool:
        """Whether to save after ``step`` of ``steps``: by ``every`` (``save_every``), else by time; after the last step
        where what was done since the last save is worth it. Only of a process that ``looks``: the ranks agree."""
        if not self._looks:
            return False
        now = time.monotonic()
        since = now - (now if self._saved_at is None else self._saved_at)
        self._saved_at = now - since
        if step >= steps:
            return since >= LAST_SAVE_SECONDS
        if every is not None:
            return step % every == 0
        allocation = self._allocation / SAVES_OF_AN_ALLOCATION
        return since >= max(SAVE_SECONDS, allocation, SAVES_OF_TIME * self._longest_save)

    def save_period(self, steps: int, every: int | None) -> int:
        """Steps between two saves for a program that is told so once, when it starts: by ``every``, else by the time
        that steps took so far; before the first an eighth of all."""
        if every is not None:
            return every
        seconds = progress.step_seconds(self._stage.progress)
        end = self.end()
        if seconds is None or end is None:
            return max(1, -(-steps // SAVES_OF_AN_ALLOCATION))
        between = max(SAVE_SECONDS, (end - time.time()) / SAVES_OF_AN_ALLOCATION)
        return min(steps, max(1, round(between / seconds)))

    def end(self) -> float | None:
        """Epoch second at which the allocation ends, as last written; None where nothing said so."""
        try:
            status = self._deadline.stat()
        except OSError:
            return self._end
        key = (status.st_mtime_ns, status.st_ino)
        if key != self._mtime:
            try:
                self._end = float(self._deadline.read_text().strip())
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
        if not self._looks:
            return None
        if self._stage.stop.exists():
            return "asked to stop"
        end = self.end()
        if end == 0:
            return "asked to stop"
        self._allocation = max(self._allocation, 0.0 if end is None else end - now)
        if end is not None and now + self._longest_step >= end - self.lead:
            return f"the allocation ends in {end - now:.0f} s (lead {self.lead:.0f} s)"
        return None

    def should_stop(self) -> bool:
        return self.reason() is not None
