"""A command on a terminal of its own: what a person would see, as bytes."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def on_terminal(
    arguments: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    *,
    columns: int = 80,
    until: Callable[[bytes], bool] = lambda shown: False,
    seconds: float = 60,
) -> tuple[int, str, float]:
    """Exit code, all that was shown, and the seconds from ``until`` (where Ctrl-C is pressed) to the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, close_fds=True, start_new_session=True,
        env={**variables, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown, end, pressed = b"", time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if not pressed and until(shown):
            pressed = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
    took = time.monotonic() - pressed
    code = process.wait(10)
    os.close(ours)
    return code, shown.decode(errors="replace"), took
