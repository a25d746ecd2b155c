"""The lock of a run: one holder at a time, also when holders die and several find their locks."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import os
import socket
import time
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base import lock
from launch.base.errors import InputError
from launch.runs import rundir
from launch.runs.rundir import Run, RunBusy, locked


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


# Two login nodes: processes of this machine with host names and clocks of their own.


def _on_host(name: str, skew: float) -> None:
    """What follows in this process happens on another host, whose clock is ``skew`` seconds ahead."""
    real = time.time
    socket.gethostname = lambda: name  # type: ignore[assignment]
    time.time = lambda: real() + skew  # type: ignore[assignment]


def _hold_until(
    run: Run, skew: float, held: multiprocessing.synchronize.Event, end: multiprocessing.synchronize.Event
) -> None:
    _on_host("login1", skew)
    with locked(run):
        held.set()
        end.wait(120)


@pytest.mark.failure(37)
@pytest.mark.parametrize("skew", [-700.0, 0.0, 700.0])
def test_a_living_holder_on_another_host_keeps_it_whatever_the_clocks_say(
    run: Run, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    context = multiprocessing.get_context("fork")
    held, end = context.Event(), context.Event()
    holder = context.Process(target=_hold_until, args=(run, skew, held, end))
    holder.start()
    try:
        assert held.wait(60)
        # Its last touch, too, may carry a time of its own (Lustre's are of the client): old, and still alive.
        with pytest.raises(RunBusy, match="on login1"), locked(run):
            pass
    finally:
        end.set()
        holder.join()
    with locked(run):  # released, without waiting
        pass


def _take_over(run: Run, name: str, skew: float, gate: object, answers: object) -> None:
    _on_host(name, skew)
    inside = run.paths.root / "inside"
    gate.wait()  # type: ignore[attr-defined]
    for _ in range(200):
        try:
            with locked(run):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                time.sleep(0.01)
                inside.unlink()
            answers.put("held")  # type: ignore[attr-defined]
            return
        except RunBusy:
            time.sleep(0.05)
        except FileExistsError:
            break
    answers.put("met another")  # type: ignore[attr-defined]


@pytest.mark.failure(37)
def test_of_several_hosts_that_find_a_dead_lock_one_at_a_time_holds_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All judge it dead in the same moment, and each would take the other's new lock for the dead one."""
    monkeypatch.setattr(rundir, "LOCK_SILENT_SECONDS", 5.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    run.paths.lock.write_text(json.dumps({"host": "login9", "pid": 1, "time": time.time() + 9000, "token": "dead"}))
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    hosts = [(f"login{number}", 700.0 * (number - 2)) for number in range(4)]
    workers = [context.Process(target=_take_over, args=(run, *host, gate, answers)) for host in hosts]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=240) for _ in workers] == ["held"] * 4
    for worker in workers:
        worker.join()
    assert [path.name for path in run.paths.root.iterdir()] == []


@pytest.mark.failure(37)
def test_a_turn_whose_owner_died_is_taken_from_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "LOCK_SILENT_SECONDS", 0.2)
    for name in ("lock", ".lock.over"):
        (run.paths.root / name).write_text(json.dumps({"host": "login9", "pid": 1, "time": 0.0, "token": name}))
    with locked(run):
        pass
    assert [path.name for path in run.paths.root.iterdir()] == []
