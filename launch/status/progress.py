"""What the jobs of a stage noted: how fast it goes and when it will be done, when it began and when it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.core import progress, strict
from jobs.core.paths import StagePaths
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


@dataclass(frozen=True)
class Worked:
    """What made a sealed stage. ``starts``: what its jobs noted when they began, of those since it was sealed before
    (a damaged result is made again); ``end``: when one of them sealed; empty: nothing. ``seconds``: of all starts
    together, without the time between them; None: not known."""

    starts: list[dict[str, Any]]
    end: dict[str, Any]
    seconds: float | None


def worked(stage: StagePaths) -> Worked:
    """As the jobs of a stage have noted it."""
    try:
        lines = strict.content(stage.events).splitlines()
    except (FileNotFoundError, ValueError):
        return Worked([], {}, None)
    # Asked for every finished stage: the lines of other events are not worth parsing.
    wanted = (b'"start"', b'"sealed"', b'"verdict"')
    notes = [note for line in lines if any(word in line for word in wanted) if (note := _note(line))]
    notes = [note for note in notes if note.get("event") in ("start", "sealed", "verdict")]
    seals = [number for number, note in enumerate(notes) if note.get("event") == "sealed"]
    if len(seals) > 1:
        notes = notes[seals[-2] + 1 :]
    starts = [note for note in notes if note.get("event") == "start"]
    end: dict[str, Any] = next((note for note in reversed(notes) if note.get("event") == "sealed"), {})
    if not starts or not end:
        return Worked(starts, end, None)
    return Worked(starts, end, sum(_seconds(start, notes, lines, stage) for start in starts))


def _seconds(start: dict[str, Any], notes: list[dict[str, Any]], lines: list[bytes], stage: StagePaths) -> float:
    """From its beginning to its own last word; of one that was ended without any, to its last sign of life, and where
    it gave none, until the next one began."""
    began = start["time"]
    later = [one["time"] for one in notes if one.get("event") == "start" and one["time"] > began]
    # The seal is the last start's, whatever it says.
    own = [
        one["time"]
        for one in notes
        if one["event"] != "start" and (_is_of(one, start) or (not later and one["event"] == "sealed"))
    ]
    if not own and later:
        own = [at for at in _signs(start, lines, stage) if began < at < min(later)] or [min(later)]
    return max(0.0, float(max(own, default=began) - began))


def _is_of(note: Mapping[str, Any], start: Mapping[str, Any]) -> bool:
    restart = start.get("restart")
    return bool(note.get("job") == start.get("job") and note.get("restart", restart) == restart)


def _signs(start: Mapping[str, Any], lines: list[bytes], stage: StagePaths) -> Iterator[float]:
    """When a start noted or reported anything."""
    yield from (one["time"] for one in map(_note, lines) if _is_of(one, start))
    yield from (one.time for one in progress.read(stage.progress) if one.restart == start.get("restart"))


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
