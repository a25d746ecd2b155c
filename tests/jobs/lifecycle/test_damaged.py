"""A start that meets damaged or hostile files of an earlier one: a verdict or work, never a traceback and never for ever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.core import patience, verdict
from jobs.core.spec import StageSpec
from jobs.lifecycle import steps
from jobs.lifecycle.start import Start, claim_of
from jobs.lifecycle.steps import Entry
from jobs.training.saves import Saves
from tests.file_faults.job import prepare, put, spec_of

FIRST, NEXT = Start("100", 0, 0, "node1", ("node1",)), Start("100", 1, 0, "node2", ("node2",))

FILES: dict[str, Callable[[StageSpec], Path]] = {
    "attempt": lambda spec: spec.store_paths.attempt(1),
    "ids": lambda spec: spec.store_paths.attempt_jobs(1),
    "claim": lambda spec: spec.store_paths.claim(spec.attempt, 0, 0),
    "save": lambda spec: spec.store_paths.save_seal(4),
    "verdict": lambda spec: spec.stage_paths.verdict("100", 0),
    "events": lambda spec: spec.stage_paths.events,
    "result": lambda spec: spec.stage_paths.result,
    "progress": lambda spec: spec.stage_paths.progress,
    "deadline": lambda spec: spec.stage_paths.deadline("100", 1),
    "stop": lambda spec: spec.stage_paths.stop,
    "stall": lambda spec: spec.stage_paths.stall("100", 1),
    "avoid": lambda spec: spec.stage_paths.avoid("100"),
}

TEXTS = [
    b"", b"[]", b"7", b"\xff\xfe\0", b"[" * 100_000, b"9" * 5000, b'{"a": 1, "a": 2}', b'{"job": 7, "restart": "x"}',
    b'{"step": 1e308, "outcome": ["done"], "time": "soon", "event": "start"}\n', b'{"files": 7, "path": "../../x"}',
]  # fmt: skip


def as_directory(path: Path) -> None:
    path.mkdir()
    (path / "x").write_text("x")


KINDS: dict[str, Callable[[Path], object]] = {
    "directory": as_directory,
    "pipe": lambda path: os.mkfifo(path),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
}
KINDS |= {repr(text[:20]): lambda path, text=text: path.write_bytes(text) for text in TEXTS}


@pytest.mark.failure(30)
@pytest.mark.parametrize("name", FILES)
def test_a_start_that_meets_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(patience, "TOTAL_SECONDS", 0.05)
    monkeypatch.setattr(steps, "WORD_SECONDS", 0.05)
    monkeypatch.setattr("jobs.core.files.CREATION_SECONDS", 0.0)
    for number, (kind, make) in enumerate(KINDS.items()):
        spec = spec_of(tmp_path / str(number))
        prepare(spec)
        assert steps.prologue(spec, FIRST) is Entry.WORK
        saves = Saves(spec.store_paths, spec.fingerprint, claim_of(spec, FIRST), lambda name, **facts: None)
        for step in (2, 4):
            (saves.directory / f"checkpoint-{step}").mkdir()
            put(saves.directory / f"checkpoint-{step}" / "state", b"%d" % step)
            saves.seal(step)
        steps.finish(spec, FIRST, 137)
        path = FILES[name](spec)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)
        entry = steps.prologue(spec, NEXT)
        assert entry in (Entry.WORK, Entry.FAIL, Entry.MOVE), (name, kind)
        if entry is Entry.WORK:
            found = Saves(spec.store_paths, spec.fingerprint, None, lambda name, **facts: None).newest_valid()
            assert found is not None, (name, kind)
            assert found[0] == (2 if name == "save" else 4), (name, kind)
        said = verdict.of_attempt(spec.stage_paths.verdict("100", 1))
        assert (said is not None) == (entry is not Entry.WORK), (name, kind)
        assert steps.finish(spec, NEXT, 1) in ("fail", "requeue"), (name, kind)
