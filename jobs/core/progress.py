"""Progress of a stage: one JSON line a report, read by bars, status and the loss comparison."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import files, strict

WINDOW_BYTES = 32 * 1024
"""Some hundred reports: enough for a steady rate, little enough that a file of a million steps costs nothing."""


@dataclass(frozen=True)
class Report:
    """``step`` of ``total`` (None: unknown) of ``phase``; ``metrics`` holds loss and the like."""

    time: float
    step: int
    total: int | None
    phase: str
    metrics: dict[str, float]
    restart: int = 0

    @classmethod
    def parse(cls, line: str) -> Report | None:
        """The report in a line of ``progress.jsonl``; None for one that a kill or the reader has cut, and any other."""
        if (known := _usual(line)) is not None:
            return known
        try:
            value = strict.parse(line)
            return strict.build(cls, {"phase": "", "metrics": {}, "total": None, **value})
        except (TypeError, ValueError):
            return None


_KEYS = frozenset({"time", "step", "total", "phase", "metrics", "restart"})


def _usual(line: str) -> Report | None:
    """The report in a line as ``ProgressWriter`` writes it, in a third of the time that others take: a night has
    hundreds of thousands. None: it takes a closer look."""
    try:
        value = json.loads(line)
        time_, step, total, restart = value["time"], value["step"], value["total"], value["restart"]
        metrics, phase = value["metrics"], value.get("phase", "")
        numbers = metrics.values()
        quotes = 2 * (len(value) + len(metrics) + ("phase" in value))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    is_usual = (
        type(time_) is float and type(step) is int and type(restart) is int and type(phase) is str
        and (total is None or type(total) is int) and type(metrics) is dict and value.keys() <= _KEYS
        and math.isfinite(time_) and all(type(one) is float and math.isfinite(one) for one in numbers)
        and line.count('"') == quotes  # else a key stands there twice, or a quote in a name
    )  # fmt: skip
    return Report(time_, step, total, phase, metrics, restart) if is_usual else None


class ProgressWriter:
    """Appends reports. Not fsynced: a lost line costs nothing, a sync a step would."""

    def __init__(self, path: Path, restart: int = 0, enabled: bool = True) -> None:
        self._path = path
        self._restart = restart
        self._enabled = enabled

    def report(self, step: int, total: int | None, phase: str = "", **metrics: float) -> None:
        if not self._enabled:
            return
        clean = {name: value for name, value in metrics.items() if math.isfinite(value)}
        line: dict[str, Any] = {"time": time.time(), "step": step, "total": total, "restart": self._restart}
        if phase:
            line["phase"] = phase
        files.append_json_line(self._path, {**line, "metrics": clean}, durable=False)


def read(path: Path) -> Iterator[Report]:
    """All reports of a stage in order of writing; none where there is no file yet."""
    yield from filter(None, map(Report.parse, files.read_lines(path)))


def recent(path: Path, window: int = WINDOW_BYTES) -> list[Report]:
    """The reports at the end of a progress file, oldest first; none where there is no file yet."""
    return list(filter(None, map(Report.parse, files.tail(path, window))))


def recent_steps(path: Path) -> list[Report]:
    """Those of ``recent`` that are of steps, and not of another phase of training (tokenising, a long validation)."""
    return [report for report in recent(path) if not report.phase]


def latest(path: Path) -> Report | None:
    """The newest report (status asks for many stages)."""
    return next(filter(None, map(Report.parse, reversed(files.tail(path, WINDOW_BYTES)))), None)


def step_seconds(path: Path) -> float | None:
    """Median of the seconds that a step took lately; None where no two reports of one start say so."""
    pairs = [(a, b) for a, b in itertools.pairwise(recent_steps(path)) if a.restart == b.restart and a.step < b.step]
    gaps = sorted((b.time - a.time) / (b.step - a.step) for a, b in pairs)
    return max(gaps[len(gaps) // 2], 1e-6) if gaps else None
