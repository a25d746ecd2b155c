"""Progress of a stage: one JSON line a report, read by bars, status and the loss comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import files


@dataclass(frozen=True)
class Report:
    """``step`` of ``total`` (None: unknown) of ``phase``; ``metrics`` holds loss and the like."""

    time: float
    step: int
    total: int | None
    phase: str
    metrics: dict[str, float]
    restart: int = 0


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
    """All reports of a stage in order of writing; a torn line is passed over."""
    for value in files.read_json_lines(path):
        try:
            yield Report(
                float(value["time"]),
                int(value["step"]),
                value.get("total"),
                value.get("phase", ""),
                value.get("metrics", {}),
                int(value.get("restart", 0)),
            )
        except (KeyError, TypeError, ValueError):
            continue


def latest(path: Path, window: int = 16384) -> Report | None:
    """The newest report, read from the last ``window`` bytes only (status asks for many stages)."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - window))
            tail = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    import json

    for line in reversed(tail.splitlines()):
        try:
            value = json.loads(line)
            return Report(
                float(value["time"]),
                int(value["step"]),
                value.get("total"),
                value.get("phase", ""),
                value.get("metrics", {}),
                int(value.get("restart", 0)),
            )
        except (KeyError, TypeError, ValueError):
            continue
    return None
