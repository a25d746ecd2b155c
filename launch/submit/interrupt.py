"""Ctrl-C during a submission: noted at once, acted on between two jobs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Ctrl-C during submission: everything that happened is recorded."""


class Interrupt:
    """Ctrl-C is noted and acted on between two submissions, never between sbatch and its record."""

    def __init__(self) -> None:
        self.pending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pending = True


@contextmanager
def deferred(note: Interrupt) -> Iterator[None]:
    """Note Ctrl-C in ``note`` for the while; it reaches the main thread alone, so that another one just goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
