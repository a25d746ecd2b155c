"""What a start says at its end reaches the verdict of that start alone."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core import claim, files
from jobs.core.verdict import FailureClass
from jobs.lifecycle.start import Start, claim_of, newest_save, own_saves_of, write_failure, write_result
from tests.file_faults.job import prepare, spec_of

FIRST = Start("100", 0, 0, "node1", ("node1",))


@pytest.mark.failure(10)
def test_what_watches_a_replaced_start_writes_over_nothing(tmp_path: Path) -> None:
    """The monitor of a node that was only taken for dead finds a hang after another start has finished."""
    spec = spec_of(tmp_path)
    prepare(spec)
    later = replace(FIRST, restart=1, host="node2")
    for start in (FIRST, later):
        assert claim.take(spec.store_paths, claim_of(spec, start)) is None
        files.make_directory(own_saves_of(spec, start))
    write_result(spec, later, {"outcome": "done"})
    write_failure(spec, FIRST, FailureClass.HANG, "no step for 900 s")
    assert json.loads(spec.stage_paths.result.read_text()) == {
        "outcome": "done", "job": "100", "restart": 1, "attempt": later.attempt
    }  # fmt: skip


def test_runs_and_store_on_two_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    prepare(spec)
    assert claim.take(spec.store_paths, claim_of(spec, FIRST)) is None
    files.make_directory(own_saves_of(spec, FIRST))

    def across(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(claim, "move", across)
    write_failure(spec, FIRST, FailureClass.HANG, "no step")
    assert json.loads(spec.stage_paths.result.read_text())["failure"] == "hang"


def test_what_an_evaluation_has_kept_is_counted_once_while_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(spec_of(tmp_path), kind="evaluate")
    assert newest_save(spec) is None
    kept = spec.store_paths.work / "cloze.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert newest_save(spec) == 2
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", None)
        assert newest_save(spec) == 2
    with kept.open("a") as stream:
        stream.write(": 3}\n")
    assert newest_save(spec) == 3
