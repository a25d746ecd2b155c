"""How fast a stage goes and when it will be done, from its newest reports."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.core.progress import Report


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
