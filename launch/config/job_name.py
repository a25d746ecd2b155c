"""How the jobs of a profile are called in the queue: every name comes only once, and says whose job it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from launch.config.fields import Count, Line, StrictModel

_RUN = 5
_TOKEN = re.compile(r"[0-9a-z]{6}")
_END = re.compile(r"-([0-9a-z]{6})(?:-(\d{1,3}))?\Z")
"""Of a job's name: the attempt's token and the number of the link."""


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,15}", text):
        raise ValueError(f"{text!r}: write up to 16 letters, digits and . _ -, not one of these first")
    return text


class JobName(StrictModel):
    """How jobs are called in the queue. ``longest``: at sites that refuse longer names; the stage's is cut then."""

    prefix: Annotated[Line, AfterValidator(_prefix)] = "on"
    longest: Count | None = None

    def of(self, run: str, stage: str, attempt: str, link: int) -> str:
        """Unique in the queue, and readable there."""
        end = f"-{link}" if link else ""
        name = f"{self.prefix}-{run}-{stage}-{attempt}{end}"
        if self.longest is None or len(name) <= self.longest:
            return name
        # A token comes only once; of a probe and an array, which have none, the digest of the whole name does.
        token = attempt if _TOKEN.fullmatch(attempt) else hashlib.sha256(name.encode()).hexdigest()[:6]
        before, after = f"{self.prefix}-{run[:_RUN]}-", f"{token}{end}"
        cut = stage[: max(0, self.longest - len(before) - len(after) - 1)]
        return before + (f"{cut}-" if cut else "") + after

    def shortest(self, links: int) -> int:
        """The longest name has to be this long at least."""
        return len(self.prefix) + _RUN + 8 + (len(f"-{links - 1}") if links > 1 else 0)

    def stage_of(self, name: str, run: str, stages: Iterable[str]) -> str | None:
        """The stage of a run whose job may have this name: of several that are cut to the same the first."""
        found = _END.search(name)
        if found is None or not name.startswith(f"{self.prefix}-{run}-"):
            return None
        token, link = found[1], int(found[2] or 0)
        return next((stage for stage in stages if name == self.of(run, stage, token, link)), None)
