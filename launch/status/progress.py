"""What the jobs of a stage noted: how fast it goes and when it will be done, when it began and when it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.core import strict
from jobs.core.progress import Report
from jobs.core.validation import LOSS


def seconds_per_step(reports: Sequence[Report]) -> float | None:
    """Time of a step in the phase and restart of the newest report; None before its second step. Counted from the first
    reported step: what comes before (imports, loading) happens once."""
    if not reports:
        return None
    last = reports[-1]
    same = [report for report in reports if (report.phase, report.restart) == (last.phase, last.restart)]
    # A phase may count from the beginning again (two validation passes): only the rising end belongs together.
    first = last
    for report in reversed(same):
        if report.step > first.step:
            break
        first = report
    if last.step <= first.step or last.time <= first.time:
        return None
    return (last.time - first.time) / (last.step - first.step)


def seconds_left(reports: Sequence[Report]) -> float | None:
    """Estimate until the phase's last step, counted from the newest report; None where it cannot be told."""
    each = seconds_per_step(reports)
    if each is None or reports[-1].total is None:
        return None
    return max(0, reports[-1].total - reports[-1].step) * each


def starts_and_end(events: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the jobs of a stage noted when they began to work, and when one of them sealed (empty: nothing)."""
    try:
        lines = strict.content(events).splitlines()
    except (FileNotFoundError, ValueError):
        return [], {}
    # Asked for every finished stage: the lines of other events are not worth parsing.
    notes = [note for line in lines if b'"start"' in line or b'"sealed"' in line if (note := _note(line))]
    ends = [note for note in notes if note.get("event") == "sealed"]
    return [note for note in notes if note.get("event") == "start"], ends[-1] if ends else {}


def _note(line: bytes) -> dict[str, Any]:
    """A line of events; empty for a torn one, or one without its time."""
    try:
        found = strict.parse(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("time"), int | float) else {}


def validation_loss(reports: Sequence[Report]) -> float | None:
    """The newest loss on the validation split among ``reports``; None: there is none."""
    return next((one.metrics[LOSS] for one in reversed(reports) if LOSS in one.metrics), None)
