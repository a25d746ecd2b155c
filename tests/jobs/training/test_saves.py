"""Saves are kept so that a good one is left; room is counted before the work; a measured save moves the lead."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core import seal
from jobs.core.paths import StorePaths
from jobs.core.progress import Report
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle import space
from jobs.training.saves import Saves
from jobs.worker.monitor import START_SECONDS, Patience

FINGERPRINT = "f" * 64


def saves(store: StorePaths, told: list[tuple[str, dict[str, Any]]] | None = None) -> Saves:
    return Saves(
        store, FINGERPRINT, None, lambda name, **facts: told.append((name, facts)) if told is not None else None
    )


def save(store: StorePaths, step: int, size: int = 1000) -> None:
    store.save(step).mkdir(parents=True)
    (store.save(step) / "state").write_bytes(os.urandom(size))
    saves(store).seal(step)


@pytest.mark.failure(30, 35)
def test_the_last_k_are_kept(tmp_path: Path) -> None:
    store = StorePaths(tmp_path)
    for step in (2, 4, 6, 8):
        save(store, step)
    store.save(3).mkdir()
    saves(store).keep_last(2)
    assert store.save_steps() == [8, 6]


@pytest.mark.failure(30, 35)
@pytest.mark.parametrize("damage", [b"", b"x" * 1000])
def test_the_only_good_save_is_never_removed(tmp_path: Path, damage: bytes) -> None:
    """The newest has a seal and is damaged: what lies before it stays, and is what a resume takes."""
    store = StorePaths(tmp_path)
    save(store, 2)
    save(store, 4)
    (store.save(4) / "state").write_bytes(damage)
    told: list[tuple[str, dict[str, Any]]] = []
    saves(store, told).keep_last(1)
    assert store.save_steps() == [4, 2]
    assert [name for name, _ in told] == ["save_unsound"]
    found = saves(store).newest_valid()
    assert found is not None
    assert found[0] == 2


def spec_of(tmp_path: Path, **more: Any) -> StageSpec:
    parent = StorePaths(tmp_path / "store" / "checkpoint-parent")
    parent.output.mkdir(parents=True)
    (parent.output / "model.json").write_bytes(bytes(1_000_000))
    seal.seal_directory(parent.output, parent.seal, kind=seal.SealKind.CHECKPOINT, format="toy", fingerprint="p" * 64)
    (tmp_path / "store" / "checkpoint-own").mkdir()
    given = Input("cpt", str(parent.root), "checkpoint", "toy", "p" * 64)
    return StageSpec(
        "r",
        "p",
        "sft",
        "sft",
        "toy",
        "abc",
        FINGERPRINT,
        str(tmp_path),
        str(tmp_path / "store" / "checkpoint-own"),
        {"kind": "checkpoint", "format": "toy"},
        {},
        {"checkpoint": given},
        target_step=10,
        **more,
    )


@pytest.mark.failure(35)
def test_a_quota_that_cannot_hold_two_checkpoints_is_said_with_numbers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, quota_bytes=2_900_000)
    said = space.lack(spec)
    assert said is not None
    assert "2 checkpoint(s) of 1.0 MB" in said
    assert "quota of 2.9 MB" in said
    assert "1.9 MB left" in said


@pytest.mark.failure(35)
def test_the_size_is_measured_once_there_is_a_save(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, quota_bytes=4_000_000)
    assert space.lack(spec) is None
    save(spec.store_paths, 5, size=2_500_000)
    said = space.lack(spec)
    assert said is not None
    assert "1 checkpoint(s) of 2.5 MB (as its save at step 5)" in said


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.failure(35)
def test_a_full_disk_leaves_the_save_before(small: Path) -> None:
    store = StorePaths(small)
    save(store, 2, size=900_000)
    with pytest.raises(OSError, match="No space left"):
        save(store, 4, size=1_500_000)
    told: list[tuple[str, dict[str, Any]]] = []
    saves(store, told).discard_unsealed()
    assert told == [("save_discarded", {"step": 4, "newest_sealed": 2})]
    found = saves(store).newest_valid()
    assert found is not None
    assert found[0] == 2
    (small / "result.json").write_text("there is room for the verdict")


@pytest.mark.failure(43)
def test_patience_follows_the_steps_and_the_saves() -> None:
    patience = Patience(None, save_seconds=100.0, began=0.0)
    assert patience.seconds == START_SECONDS
    for step in range(1, 6):
        patience.see(Report(60.0 * step, step, 10, "", {}))
    assert patience.seconds == 20 * 60 + 100, "twenty steps of a minute, and a save"
    patience.see(Report(60.0 * 5 + 1000, 6, 10, "", {}))
    assert patience.seconds == 3000 + 100, "a step that took long may do so again"
    slow_start = Patience(None, save_seconds=0.0, began=0.0)
    slow_start.see(Report(3600.0, 1, 99, "", {}))
    assert slow_start.seconds == 3 * 3600, "the next step may take as long, for all that is known"
    for step in range(2, 8):
        slow_start.see(Report(3600.0 + step, step, 99, "", {}))
    assert slow_start.seconds == 600, (
        "steps of a second: an hour to load the model does not make a hang three hours long"
    )
    told = Patience(5.0, save_seconds=0.0, began=0.0)
    told.see(Report(30.0, 1, 10, "", {}))
    assert told.seconds == 90, "slower than stall_after is not a hang"
