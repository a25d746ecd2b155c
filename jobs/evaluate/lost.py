"""Examples without a value, of those that a metric is about: answers that a judge could not read are not made good by
known pairs that it could."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.evaluate.kinds import Task

_PARTS = ("known", "kind", "clear", "language")
"""Fields of samples by which a task parts them, where it does."""


def of_metric(task: Task, metric: str, samples: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How many examples of a metric have no value, and how many it has. An example that does not say its part counts
    to each metric."""
    able = [one for one in samples if "problem" not in one]
    known = task.metrics.get(metric)
    column = None if known is None else known.among
    parts = {_part(one) for one in able}
    own = {_part(one) for one in able if column is None or task.kind.statistics(task.keys, one)[column]}
    mine = [one for one in samples if not own or _part(one) in own or ("problem" in one and _part(one) not in parts)]
    return sum("problem" in one for one in mine), len(mine)


def reason(task: Task, samples: Sequence[Mapping[str, Any]]) -> str | None:
    """The first problem of those parts of which nothing was measured; None: there is none."""
    parts = {_part(one) for one in samples if "problem" not in one}
    return next((str(one["problem"]) for one in samples if "problem" in one and _part(one) not in parts), None)


def _part(sample: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sample.get(name) for name in _PARTS)
