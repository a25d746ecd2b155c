"""The lock of a run: one holder at a time, also when holders die and several find their locks."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.errors import InputError
from launch.rundir import Run, locked


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(Workspace(tmp_path), "abcde")
    made.paths.root.mkdir(parents=True)
    return made


def _hold_again_and_again(run: Run, times: int, answers: object) -> None:
    """Take the lock so many times; now and then die with it. While it is held a file must not be there yet."""
    inside = run.paths.root / "inside"
    held, met = 0, 0
    while held < times:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            held += os.waitstatus_to_exitcode(status) == 0
            met += os.waitstatus_to_exitcode(status) == 9
            continue
        code = 9
        try:
            with locked(run):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                time.sleep(0.001)
                inside.unlink()
                if os.getpid() % 2:
                    os._exit(0)  # dies with the lock
            code = 0
        except InputError:
            code = 1
        finally:
            os._exit(code)
    answers.put((held, met))  # type: ignore[attr-defined]


def test_no_two_hold_it_although_holders_die(run: Run) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_hold_again_and_again, args=(run, 10, answers)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(met for _, met in found) == 0
    assert sum(held for held, _ in found) == 60


def test_a_lock_that_was_taken_over_is_not_removed_by_its_old_holder(run: Run) -> None:
    theirs = json.dumps({"host": "login2", "pid": 1, "time": time.time()})
    with locked(run):
        run.paths.lock.write_text(theirs)
    assert run.paths.lock.read_text() == theirs


def test_a_living_holder_is_named(run: Run) -> None:
    with locked(run):
        with pytest.raises(InputError, match="another overnight is working on run abcde") as caught, locked(run):
            pass
        assert str(os.getpid()) in caught.value.message
        assert socket.gethostname() in caught.value.message
