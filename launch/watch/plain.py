"""A watcher for terminals that cannot redraw, and for pipes: a line for each thing that changes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from launch.base.text import clock, duration
from launch.watch.screen import Screen, StageRow

STEPS_SECONDS = 60.0
"""How often a running stage says how far it is."""


def follow(look: Callable[[], Screen], tick: float, stream: TextIO | None = None) -> Screen:
    """Print until nothing goes on any more; the last that was seen."""
    stream = sys.stdout if stream is None else stream
    told: dict[str, tuple[str, str]] = {}
    stepped: dict[str, tuple[float, int | None]] = {}
    while True:
        screen, now = look(), time.time()
        for row in screen.rows:
            is_new = told.get(row.stage) != (row.state.value, row.note)
            at, step = stepped.get(row.stage, (0.0, None))
            moved = row.state.value == "running" and row.step != step and now - at >= STEPS_SECONDS
            if is_new or moved:
                print(f"{clock(now)}  {_line(row)}", file=stream, flush=True)
                told[row.stage] = row.state.value, row.note
                stepped[row.stage] = now, row.step
        if screen.is_over:
            return screen
        time.sleep(tick)


def _line(row: StageRow) -> str:
    parts = [f"{row.stage}: {row.state.value}"]
    if row.step is not None:
        parts.append(f"step {row.step}" + (f" of {row.total}" if row.total else ""))
    if row.losses:
        parts.append(f"loss {row.losses[-1]:.4g}")
    if row.left is not None and row.state.value == "running":
        parts.append(f"{duration(row.left)} left")
    return ", ".join([*parts, *([row.note] if row.note else [])])
