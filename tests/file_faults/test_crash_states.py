"""Each step of a write fails, or the process dies at it: a reader finds the old text or the new one, never a third.

The seam is ``jobs.core.files``: every small shared file (journal, seal, verdict, claim, attempt, plan) goes through it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.core import files, verdict
from jobs.core.paths import StagePaths
from jobs.core.verdict import Outcome, Verdict
from launch.runs.journal import Event, Journal

STEPS = ("open", "write", "fsync", "replace", "link")
OLD, NEW = {"n": 1}, {"n": 2}


@pytest.fixture(params=[errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def code(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def failing_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> list[str]:
    """Let the ``number``-th of the calls that change a disk fail; the list names those that were made."""
    made: list[str] = []

    def wrap(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            made.append(name)
            if len(made) == number:
                if name == "write":  # torn: half of it got through
                    handle, data = arguments
                    assert isinstance(data, bytes)
                    real(handle, data[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in STEPS:
        wrap(name)
    return made


@pytest.mark.failure(30, 37)
@pytest.mark.parametrize("number", range(1, 7))
def test_a_file_that_cannot_be_replaced_is_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    path = tmp_path / "seal.json"
    files.write_json(path, OLD)
    with monkeypatch.context() as patch:
        made = failing_at(patch, number, code)
        try:
            files.write_json(path, NEW)
            failed = False
        except OSError as error:
            assert error.errno == code
            failed = True
    assert failed == (number <= len(made))
    # After the rename the new text may stand although the caller was told of a failure: it asks again, nothing lies.
    renamed = "replace" in made[: number - 1]
    assert files.read_json(path) == (NEW if renamed or not failed else OLD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal.json"]


@pytest.mark.failure(37)
@pytest.mark.parametrize("number", range(1, 7))
def test_a_claim_that_fails_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    path = tmp_path / "claim"
    with monkeypatch.context() as patch:
        failing_at(patch, number, code)
        try:
            files.create_exclusive(path, '{"n": 2}')
        except OSError as error:
            assert error.errno == code
    assert not path.exists() or files.read_json(path) == NEW


@pytest.mark.failure(30, 37)
@pytest.mark.parametrize("number", range(1, 5))
def test_a_journal_keeps_every_entry_before_and_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(Event.CREATED, run="abcde")
    with monkeypatch.context() as patch:
        failing_at(patch, number, code)
        try:
            journal.write(Event.INTENT, stage="cpt")
        except OSError as error:
            assert error.errno == code
    journal.write(Event.SUBMITTED, stage="cpt", job="7")
    found = [entry["event"] for entry in journal.read()]
    assert found in (["created", "submitted"], ["created", "intent", "submitted"])


@pytest.mark.failure(30)
def test_every_cut_of_a_journal_is_read_up_to_there(tmp_path: Path) -> None:
    """Power cut: the file system kept any beginning of what was appended, or zeros in place of its end."""
    whole = tmp_path / "whole"
    for number in range(3):
        Journal(whole).write(Event.INTENT, number=number, stage="é")
    data = whole.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == 10]
    for zeros in (0, 7):
        for cut in range(len(data) + 1):
            path = tmp_path / f"cut-{zeros}-{cut}"
            path.write_bytes(data[:cut] + bytes(zeros))
            numbers = [entry["number"] for entry in Journal(path).read()]
            complete = sum(end <= cut for end in ends)
            assert numbers[:complete] == list(range(complete))
            assert len(numbers) <= complete + 1  # a last line that lacks nothing but its end
            files.append_json_line(path, {"time": 0.0, "event": "intent", "number": 9}, durable=False)
            assert [entry["number"] for entry in Journal(path).read()][-1] == 9
            path.unlink()


@pytest.mark.failure(30)
def test_a_torn_verdict_is_refused_with_its_name(tmp_path: Path) -> None:
    stage = StagePaths(tmp_path)
    verdict.write(stage, Verdict(Outcome.DONE, job="7"))
    path = stage.verdict("7", 0)
    data = path.read_bytes()
    for cut in range(len(data.rstrip())):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"verdict-7_0\.json"):
            verdict.read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.failure(35)
def test_on_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        files.write_json(place / "seal.json", OLD)
        Journal(place / "journal.jsonl").write(Event.CREATED)
        with pytest.raises(OSError, match="No space left"):
            (place / "fill").write_bytes(bytes(1 << 20))
        with pytest.raises(OSError, match="No space left"):
            files.write_json(place / "seal.json", {"n": "x" * 9000})
        with pytest.raises(OSError, match="No space left"):
            Journal(place / "journal.jsonl").write(Event.INTENT, text="x" * 9000)
        assert files.read_json(place / "seal.json") == OLD
        (place / "fill").unlink()
        Journal(place / "journal.jsonl").write(Event.SUBMITTED)
        assert [entry["event"] for entry in Journal(place / "journal.jsonl").read()] == ["created", "submitted"]
        assert sorted(entry.name for entry in place.iterdir()) == ["journal.jsonl", "seal.json"]
    finally:
        subprocess.run(["umount", place], check=True)
