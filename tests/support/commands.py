"""The ``overnight`` command in a fork of this process, which has imported it: no start of Python for each command.

A fork, because locks and attempts hold the process id of the command, and their readers check whether that process is
alive. Tests that kill or trace a command, or run two at once, start it as a process of its own (``python -m launch.cli``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL

from launch.cli import main

#: What commands import late, and what takes long to import.
_IMPORTED = (
    *(f"launch.cli.{name}" for name in main.COMMANDS), "launch.plan.builder", "launch.render.scripts",
    "launch.submit.submitter", "launch.submit.local", "launch.status.assess", "launch.render.executors.nemo_run",
    "launch.render.executors.submitit", "nemo_run", "submitit.slurm.slurm",
)  # fmt: skip


@functools.cache
def _import() -> None:
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):  # then the command says so
            importlib.import_module(name)


def overnight(
    *arguments: str, cwd: Path, environment: Mapping[str, str], timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """How ``overnight`` with these arguments ends, and what it prints, in that directory and environment.

    Raises:
        subprocess.TimeoutExpired: it did not end within ``timeout`` seconds, and was killed.
    """
    _import()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(arguments, cwd, environment, out.fileno(), err.fileno())
        code = _wait(pid, timeout, arguments)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess(["overnight", *arguments], code, *texts)


def _run_and_exit(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], out: int, err: int) -> None:
    """Run the command and end this process: no code of the tests runs in it afterwards."""
    code = 1
    try:
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(file, number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the end of this process
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(cwd)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        code = main.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _wait(pid: int, timeout: float, arguments: Sequence[str]) -> int:
    end, pause = time.monotonic() + timeout, 0.001
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
            raise subprocess.TimeoutExpired(["overnight", *arguments], timeout)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
