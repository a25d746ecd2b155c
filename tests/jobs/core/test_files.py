"""Small shared files: old or new, never half; appended lines survive a torn one."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from jobs.core import files, progress
from jobs.core.paths import StagePaths
from jobs.training.deadline import StopRequest
from tests.support.stages import write_deadline


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """A writer is killed with -9 at random moments; the file is always one of the two texts."""
    path = tmp_path / "value.json"
    texts = {"a" * 200_000, "b" * 200_000}
    files.write_atomic(path, "a" * 200_000)
    for round_ in range(20):
        child = os.fork()
        if child == 0:
            while True:
                for text in texts:
                    files.write_atomic(path, text)
        time.sleep(0.003 * (round_ % 7 + 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert path.read_text() in texts


@pytest.mark.failure(37)
def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    files.append_json_line(path, {"n": 1})
    with open(path, "a") as stream:
        stream.write('{"n": 2, "cut')
    files.append_json_line(path, {"n": 3})
    assert [line["n"] for line in files.read_json_lines(path)] == [1, 3]


@pytest.mark.failure(37)
def test_exclusive_creation_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert files.create_exclusive(path, "first")
    assert not files.create_exclusive(path, "second")
    assert path.read_text() == "first"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["claim"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value"
    files.write_atomic(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["value"]


def test_latest_progress_comes_from_the_tail(tmp_path: Path) -> None:
    writer = progress.ProgressWriter(tmp_path / "progress.jsonl")
    for step in range(2000):
        writer.report(step, 2000, loss=1 / (step + 1), bad=float("nan"))
    found = progress.latest(tmp_path / "progress.jsonl")
    assert found is not None
    assert found.step == 1999
    assert found.metrics == {"loss": 1 / 2000}
    assert [report.step for report in progress.read(tmp_path / "progress.jsonl")] == list(range(2000))


@pytest.mark.failure(29)
def test_the_deadline_is_read_again_when_it_moves(tmp_path: Path) -> None:
    stage = StagePaths(tmp_path)
    stop = StopRequest(stage, stage.deadline("7", 0), lead_seconds=30)
    now = time.time()
    assert stop.reason(now) is None, "no deadline known: go on"
    write_deadline(stage.deadline("7", 0), now + 100)
    assert stop.reason(now) is None
    write_deadline(stage.deadline("7", 0), now + 29)
    assert "ends in 29 s" in (stop.reason(now) or "")
    write_deadline(stage.deadline("7", 0), now + 1000)
    assert stop.reason(now) is None, "an administrator has extended the job"
    stop.saved(100.0)
    assert stop.lead == 300.0, "three times the longest save"
    assert stop.reason(now + 710) is not None
    stage.stop.touch()
    assert stop.reason(now) == "asked to stop"


@pytest.mark.failure(29)
def test_the_next_step_must_fit_before_the_lead(tmp_path: Path) -> None:
    stage = StagePaths(tmp_path)
    stop = StopRequest(stage, stage.deadline("7", 0), lead_seconds=10)
    write_deadline(stage.deadline("7", 0), 2000)
    assert stop.reason(1000) is None
    assert stop.reason(1200) is None
    assert stop.reason(1795) is not None, "195 s left to the lead: not enough for another step"


@pytest.mark.failure(36)
def test_a_file_whose_content_comes_after_its_name(tmp_path: Path) -> None:
    """As on a file system without hard links, while its maker is between the two."""
    path = tmp_path / "claim"
    path.touch()
    writer = threading.Timer(0.3, path.write_text, ['{"job": "1"}'])
    writer.start()
    assert files.read_created_json(path) == {"job": "1"}
    writer.join()
