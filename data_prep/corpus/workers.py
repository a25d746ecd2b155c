"""Shards on several processes of this machine: started afresh (no fork of a process with threads), told over pipes.

A worker reads numbers of shards from its standard input and answers with a JSON line for each. It ends with its input;
and if the parent is killed, the kernel kills it at once (PR_SET_PDEATHSIG), so that no orphan writes beside a resumed
build.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from data_prep.common.errors import DataError, SettingsError

_MARK = "\x1edata_prep "
_PR_SET_PDEATHSIG = 1


class Runner(Protocol):
    """Does one phase of some shards: on this machine, or as an array of jobs."""

    def __call__(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
        """Come back when all ``shards`` are done; ``progress`` is told each number.

        Raises:
            DataError: one of them found bad input.
        """


def cores() -> int:
    """Cores that this process may use (an allocation of Slurm shows here)."""
    return len(os.sched_getaffinity(0))


class ProcessRunner:
    """``workers`` processes on this machine. The result does not depend on their number. ``module`` has the function
    ``work`` that does a shard."""

    def __init__(self, workers: int | None = None, module: str = "data_prep.corpus.shard") -> None:
        self.workers = workers or cores()
        self._module = module

    def __call__(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
        queue: SimpleQueue[int] = SimpleQueue()
        for number in shards:
            queue.put(number)
        failures: list[BaseException] = []
        processes: list[subprocess.Popen[str]] = []
        count = min(self.workers, len(shards))
        arguments = (root, phase, queue, progress, failures, processes, max(1, cores() // count))
        threads = [threading.Thread(target=self._serve, args=arguments) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # Ctrl-C: no shard is begun any more, and those in hand are given up
            failures.append(error)
            for process in list(processes):
                process.kill()
            for thread in threads:
                thread.join()
            raise
        if failures:
            # Which shard failed first is a matter of luck; of several the one in the order of the input is shown.
            raise min(failures, key=str)

    def _serve(
        self,
        root: Path,
        phase: str,
        queue: SimpleQueue[int],
        progress: Callable[[int], None],
        failures: list[BaseException],
        processes: list[subprocess.Popen[str]],
        threads: int,
    ) -> None:
        try:
            process = _start(self._module, root, phase, threads)
        except OSError as error:  # no file or process may be opened any more: ulimit -n, -u
            failures.append(DataError(f"no worker can be started ({phase}): {error.strerror}"))
            return
        processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while not failures:
                try:
                    number = queue.get_nowait()
                except Empty:
                    return
                try:
                    process.stdin.write(f"{number}\n")
                    process.stdin.flush()
                    answer = _answer(process)
                except BrokenPipeError:
                    answer = None
                if answer is None:
                    failures.append(DataError(f"the worker for shard {number} ({phase}) ended with {_end(process)}"))
                elif "error" in answer:
                    kind = SettingsError if answer["settings"] else DataError
                    failures.append(kind(answer["error"]))
                else:
                    progress(number)
        finally:
            with contextlib.suppress(BrokenPipeError):  # it was killed with our last word unread
                process.stdin.close()
            process.wait()
            process.stdout.close()


def _start(module: str, root: Path, phase: str, threads: int) -> subprocess.Popen[str]:
    """A worker. ``-P`` and the path of our own package: no ``data_prep`` of the working directory comes first.

    It has no torch: transformers would import it (200 MB, seconds) for tokenizers, which do not need it.
    """
    ours = str(Path(__file__).resolve().parents[2])
    code = f"""import sys; sys.path.insert(0, {ours!r}); sys.modules["torch"] = None
from data_prep.corpus.workers import main; main()"""
    limits = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": str(threads)}
    limits["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that there is no torch
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, module, str(root), phase],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **limits},
    )


def _answer(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            return dict(json.loads(line.removeprefix(_MARK)))
        sys.stderr.write(line)  # what a library has printed
    return None


def _end(process: subprocess.Popen[str]) -> str:
    code = process.wait()
    return f"signal {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"exit code {code}"


def main() -> None:
    """The worker: one shard for each line of standard input."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    module, root, phase = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    work = importlib.import_module(module).work
    for line in sys.stdin:
        answer: dict[str, Any] = {"done": int(line)}
        try:
            work(root, phase, int(line))
        except DataError as error:
            answer = {"error": str(error), "settings": isinstance(error, SettingsError)}
        print(_MARK + json.dumps(answer), flush=True)
