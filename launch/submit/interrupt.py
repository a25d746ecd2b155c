"""Ctrl-C during a submission: noted at once, acted on between two jobs."""

from __future__ import annotations

import contextlib
import os
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
        if not self.pending:
            with contextlib.suppress(OSError):  # not print: a handler must not enter a buffer that is being written
                os.write(2, b"\nstopping as soon as this job is submitted or refused\n")
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
