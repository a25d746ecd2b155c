"""Holds a server for the process that started it: ``python keeper.py COMMAND...``.

It ends the server, with every process that the server has started, when its own input ends: the stage closes it, or is
killed, in whatever way. A server in a session of its own is not reached by what kills the stage, and a signal of the
kernel on the death of its parent does not reach the processes behind it (vLLM has several).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

GRACE_SECONDS = 5.0
"""Between the request to end and the end by force."""

LOOK_SECONDS = 0.1
NOT_STARTED = 127
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def main(command: Sequence[str]) -> int:
    """Exit code of the server, minus the signal that ended it, or 127 where it cannot be started."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the server leaves behind becomes ours
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # of the whole job: the stage says what follows
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_us)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    try:
        while server.poll() is None and not _is_over(LOOK_SECONDS):
            pass
        code = server.poll()
    finally:
        _end(server)
    return server.returncode if code is None else code


def _die_with_us() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _is_over(seconds: float) -> bool:
    """Whether nobody holds our input any more."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1024)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the group of the server to end, and kill what is left of it, and of what left the group."""
    _to_group(server, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(GRACE_SECONDS)
    _to_group(server, signal.SIGKILL)
    server.wait()
    while left := list(_children()):  # the children of what is killed become ours, too
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _to_group(server: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, number)


def _children() -> Iterator[int]:
    for path in Path("/proc/self/task").glob("*/children"):
        yield from map(int, path.read_text().split())


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.exit(ended if ended >= 0 else 128 - ended)
