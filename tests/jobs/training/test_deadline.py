"""When a stage saves by itself: by steps, by time, and after the last step."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobs.core.paths import StagePaths
from jobs.core.progress import ProgressWriter
from jobs.training import deadline
from jobs.training.deadline import StopRequest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def saved(stop: StopRequest, clock: list[float], steps: int, seconds: float, every: int | None = None) -> list[int]:
    """The steps after which a stage saves whose steps take so long."""
    found = []
    for step in range(1, steps + 1):
        clock[0] += seconds
        stop.reason()
        if stop.save_due(step, steps, every):
            stop.saved(1.0)
            found.append(step)
    return found


@pytest.mark.failure(33)
def test_without_save_every_saves_follow_the_time(tmp_path: Path, clock: list[float]) -> None:
    stage = StagePaths(tmp_path)
    stage.deadline("7", 0).write_text(str(clock[0] + 8 * 7200))
    assert saved(StopRequest(stage, stage.deadline("7", 0), 60.0), clock, 470, 120.0) == [
        61,
        121,
        181,
        241,
        301,
        361,
        421,
        470,
    ], "two hours apart"
    stage.deadline("7", 0).unlink()
    assert saved(StopRequest(stage, stage.deadline("7", 0), 60.0), clock, 30, 60.0) == [11, 21, 30], (
        "ten minutes, where no end is known"
    )


def test_save_every_counts_steps_and_the_last_is_saved_where_it_is_worth_it(tmp_path: Path, clock: list[float]) -> None:
    stop = StopRequest(StagePaths(tmp_path), tmp_path / "deadline", 60.0)
    assert saved(stop, clock, 10, 1.0, every=4) == [4, 8], "two steps are made again sooner"
    assert saved(StopRequest(StagePaths(tmp_path), tmp_path / "deadline", 60.0), clock, 10, 100.0, every=4) == [
        4,
        8,
        10,
    ]
    assert deadline.LAST_SAVE_SECONDS == 60.0


def test_a_program_that_is_told_once_saves_by_the_time_that_its_steps_took(tmp_path: Path, clock: list[float]) -> None:
    """As nemo_rl is."""
    stage = StagePaths(tmp_path)
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).save_period(400, 25) == 25
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).save_period(401, None) == 51, (
        "nothing is known of its steps: an eighth of them"
    )
    writer = ProgressWriter(stage.progress)
    for step in range(1, 12):
        clock[0] += 30.0
        writer.report(step, 400)
    stage.deadline("7", 0).write_text(str(clock[0] + 8 * 3600))
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).save_period(400, None) == 120, (
        "eight times in the allocation"
    )
    stage.deadline("7", 0).write_text(str(clock[0] + 1200))
    for size in range(1, 30):
        writer.report(size, 400, "tokenize (MB)")
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).save_period(400, None) == 20, (
        "and not more often than every ten minutes"
    )
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).save_period(12, None) == 12


def test_a_process_that_does_not_look_asks_nothing_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks agree at each step whether any of them was told to stop, and whether a save is due."""
    stage = StagePaths(tmp_path)
    stage.stop.touch()
    stage.deadline("7", 0).write_text("1")
    assert StopRequest(stage, stage.deadline("7", 0), 60.0).should_stop()
    monkeypatch.setattr("os.stat", None)
    other = StopRequest(stage, stage.deadline("7", 0), 60.0, looks=False)
    assert not other.should_stop()
    assert not other.save_due(4, 8, 2)
