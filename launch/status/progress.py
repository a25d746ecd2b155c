"""How fast a stage goes and when it will be done, from the end of its ``progress.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jobs.core.progress import Report

WINDOW_BYTES = 32 * 1024
"""Some hundred reports: enough for a steady rate, little enough that a file of a million steps costs nothing."""


def recent(path: Path, window: int = WINDOW_BYTES) -> list[Report]:
    """The reports at the end of a progress file, oldest first; none where there is no file yet."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - window))
            lines = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [report for line in lines if (report := _report(line)) is not None]


def _report(line: str) -> Report | None:
    """A report; None for a line that the window or a kill has cut."""
    try:
        value = json.loads(line)
        return Report(
            float(value["time"]),
            int(value["step"]),
            value.get("total"),
            str(value.get("phase", "")),
            dict(value.get("metrics", {})),
            int(value.get("restart", 0)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def seconds_per_step(reports: Sequence[Report]) -> float | None:
    """Time of a step in the phase and restart of the newest report; None before its second step.

    The first reported step is where counting begins: what comes before it (imports, loading) happens once.
    """
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
