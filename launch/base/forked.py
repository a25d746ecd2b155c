"""A script of Python's in a fork of this process: no interpreter is started, and no module is imported twice."""

from __future__ import annotations

import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


def run(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """What a Python script printed and how it ended, run in a copy of this process, in which modules are there already.

    Args:
        command: the script and its arguments.

    Raises:
        subprocess.TimeoutExpired: it was killed after so many ``seconds``.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaints:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _become(command, environment, said.fileno(), complaints.fileno())
        os.close(writer)
        ended: list[int] = []
        try:
            ended, _, _ = select.select([reader], [], [], seconds)  # readable when its other end is closed
        finally:
            os.close(reader)
            if not ended:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if not ended:
            raise subprocess.TimeoutExpired(command, seconds)
        texts = []
        for stream in (said, complaints):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), *texts)


def _become(command: Sequence[str], environment: Mapping[str, str], out: int, err: int) -> NoReturn:
    """Run a script as Python would that is started with it, and end."""
    code: Any = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (os.fdopen(handle, "w", encoding="utf-8", closefd=False) for handle in (1, 2))
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = list(command)
        try:
            runpy.run_path(command[0], run_name="__main__")
            code = 0
        except SystemExit as done:
            code = done.code or 0
            if not isinstance(code, int):  # words, which Python prints
                print(code, file=sys.stderr)
                code = 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
