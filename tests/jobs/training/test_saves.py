"""Saves are kept so that a good one is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import StorePaths
from jobs.training.saves import Saves

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
    assert saves(store).newest_valid() == (2, store.save(2))


def test_a_resume_takes_the_newest_save_that_verifies_and_removes_newer_ones(tmp_path: Path) -> None:
    store = StorePaths(tmp_path)
    told: list[tuple[str, dict[str, Any]]] = []
    assert saves(store, told).resume() is None
    assert told == []
    save(store, 2)
    save(store, 4)
    (store.save(4) / "state").write_bytes(b"")
    assert saves(store, told).resume() == (2, store.save(2))
    assert store.save_steps() == [2]
    assert told[-1] == ("resumed", {"step": 2, "path": str(store.save(2))})


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
    assert saves(store).newest_valid() == (2, store.save(2))
    (small / "result.json").write_text("there is room for the verdict")
