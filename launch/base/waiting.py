"""What a command waits for, on a terminal, once it takes longer than half a second; gone when something is printed.

No thread: processes are forked by commands, and a fork of one of several threads is a trap. A timer of the system
interrupts the main thread instead; calls that it interrupts go on by themselves (PEP 475).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

AFTER_SECONDS = 0.5
EVERY_SECONDS = 0.25
_TURNS = "|/-\\"

_doing: list[str] = []
_is_on = False


@contextlib.contextmanager
def on(what: str) -> Iterator[None]:
    """``what`` is waited for meanwhile; also where nothing is shown."""
    _doing.append(what)
    try:
        yield
    finally:
        _doing.remove(what)  # not pop: questions are asked by several threads at once


class _Line:
    """The line at the bottom of the terminal. Written with ``os.write``: a handler of a signal must not enter a buffer
    that the main thread is in."""

    def __init__(self, stream: TextIO) -> None:
        self._number = stream.fileno()
        self._began = time.monotonic()
        self._turn = 0
        self.is_shown = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        seconds = int(time.monotonic() - self._began)
        with contextlib.suppress(OSError):
            width = max(20, os.get_terminal_size(self._number).columns)
            self._turn += 1
            text = f"{_TURNS[self._turn % 4]} {_doing[-1] if _doing else 'at work'} ({seconds} s)"
            os.write(self._number, f"\r{text[: width - 1]}\x1b[K".encode(errors="replace"))
            self.is_shown = True

    def clear(self) -> None:
        """Take the line away, and begin to wait anew."""
        self._began = time.monotonic()
        if self.is_shown:
            self.is_shown = False
            with contextlib.suppress(OSError):
                os.write(self._number, b"\r\x1b[K")
        _start()


class _Clearing:
    """A stream before whose output the line goes."""

    def __init__(self, stream: TextIO, line: _Line) -> None:
        self._stream, self._line = stream, line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._line.clear()
        return self._stream.write(text)


def _start() -> None:
    if _is_on:
        signal.setitimer(signal.ITIMER_REAL, AFTER_SECONDS, EVERY_SECONDS)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Nothing is shown meanwhile: the user is asked something."""
    global _is_on
    was, _is_on = _is_on, False
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        _is_on = was
        _start()


@contextlib.contextmanager
def shown(what: str, quiet: bool) -> Iterator[None]:
    """Show what is waited for meanwhile, ``what`` where nothing more is known. Nothing is shown where ``quiet``, where
    standard error is no terminal, or off the main thread."""
    global _is_on
    if _is_on:
        with on(what):
            yield
        return
    main = threading.current_thread() is threading.main_thread()
    if quiet or not main or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield
        return
    line = _Line(sys.stderr)
    before = signal.signal(signal.SIGALRM, line)
    streams = (cast(TextIO, _Clearing(one, line)) for one in (sys.stdout, sys.stderr))
    try:
        _is_on = True
        with on(what), contextlib.redirect_stdout(next(streams)), contextlib.redirect_stderr(next(streams)):
            _start()
            yield
    finally:
        _is_on = False
        line.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
