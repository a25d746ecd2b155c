"""Saves are kept so that a good one is left."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, hashing, seal, shares
from jobs.core.paths import StorePaths
from jobs.core.shares import Node
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


@pytest.mark.failure(35)
@pytest.mark.parametrize("count", [1, 2])
def test_what_is_read_before_a_save_goes_comes_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """By one process and by the nodes of a job: what this node remembers of a file proves nothing."""
    monkeypatch.setattr(shares, "_POLL_SECONDS", 0.01)
    store = StorePaths(tmp_path)
    dropped: list[Path] = []
    read: list[tuple[str, bool]] = []
    real, drop = hashing.digest_files, files.drop_cache

    def digest(directory: Path, names: list[str], *given: Any, **named: Any) -> Any:
        if directory.parent == store.saves:
            read.extend((f"{directory.name}/{name}", directory / name in dropped) for name in names)
        return real(directory, names, *given, **named)

    monkeypatch.setattr(hashing, "digest_files", digest)
    monkeypatch.setattr(files, "drop_cache", lambda path: [dropped.append(path), drop(path)][1])
    team = [of_node(store, number, count, []) for number in range(count)]
    for step in (2, 4, 6):
        save_together(team, step)
    assert store.save_steps() == [6, 4]
    of_one = {name.split("/")[0] for name, _ in read}
    assert len(of_one) == 1
    names = {*(f"__{rank}_0.distcp" for rank in range(count)), "trainer_state.json"}
    assert sorted(read) == sorted((f"{next(iter(of_one))}/{name}", True) for name in names)


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


# Several nodes


def of_node(store: StorePaths, number: int, count: int, told: list[tuple[str, dict[str, Any]]]) -> Saves:
    node = Node(number, count, range(number, number + 1))
    return Saves(store, FINGERPRINT, None, lambda name, **facts: told.append((name, facts)), node=node)


def save_together(team: list[Saves], step: int, keep: int = 2, best: int | None = None) -> list[float]:
    """Every node writes its file of the save, then all seal it, each in its thread."""
    took: list[float] = []
    made = team[0].directory / f"checkpoint-{step}"
    made.mkdir()
    for rank, _ in enumerate(team):
        (made / f"__{rank}_0.distcp").write_bytes(os.urandom(2000 + rank))
    (made / "trainer_state.json").write_text(f"{step}")
    for one in team:
        one.seal_beside(step, keep, took.append, best=best)
    for one in team:
        one.wait()
    return took


def test_nodes_seal_a_save_together_and_keep_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_POLL_SECONDS", 0.01)
    store, told = StorePaths(tmp_path), list[tuple[str, dict[str, Any]]]()
    team = [of_node(store, number, 3, told) for number in range(3)]
    read: list[tuple[str, int]] = []
    real = hashing.digest_files
    monkeypatch.setattr(
        hashing,
        "digest_files",
        lambda at, names, *a, **k: [read.append((at.name, len(names))), real(at, names, *a, **k)][1],
    )
    assert len(save_together(team, 2)) == 1, "the first one says when it is sealed"
    assert sorted(read) == [("checkpoint-2", 0)] + [("checkpoint-2", 1)] * 2 + [("checkpoint-2", 2)], "each file once"
    for step in (4, 6, 8):
        save_together(team, step)
    assert store.save_steps() == [8, 6]
    assert [facts["step"] for name, facts in told if name == "saved"] == [2, 4, 6, 8]
    assert not list((team[0].directory / "answers").iterdir()), "nothing of the answers is left"
    seal.verify(store.save(8), store.save_seal(8))
    for step in (10, 12, 14):
        save_together(team, step, best=8)
    assert store.save_steps() == [14, 12, 8]
    save_together(team, 16, best=16)
    assert store.save_steps() == [16, 14]


@pytest.mark.failure(30, 35)
def test_the_only_good_save_of_several_nodes_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_POLL_SECONDS", 0.01)
    store, told = StorePaths(tmp_path), list[tuple[str, dict[str, Any]]]()
    team = [of_node(store, number, 2, told) for number in range(2)]
    for step in (2, 4):
        save_together(team, step)
    (store.save(4) / "__1_0.distcp").write_bytes(os.urandom(2001))
    save_together(team, 6)
    assert store.save_steps() == [6, 4, 2], "what would be left beside the newest is damaged"
    assert next(facts["step"] for name, facts in told if name == "save_unsound") == 4


@pytest.mark.failure(30)
def test_a_node_that_does_not_answer_leaves_the_save_unsealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(shares, "_POLL_SECONDS", 0.01)
    store = StorePaths(tmp_path)
    first = of_node(store, 0, 2, [])
    (first.directory / "checkpoint-2").mkdir()
    (first.directory / "checkpoint-2" / "state").write_text("state")
    first.seal_beside(2, 2, lambda seconds: None)
    with pytest.raises(TimeoutError, match="number 1"):
        first.wait()
    assert store.save_steps() == []


@pytest.mark.failure(31)
def test_training_goes_on_while_a_save_is_sealed_and_a_failure_ends_that(
    tmp_path: Path, sealing: threading.Event
) -> None:
    store, took = StorePaths(tmp_path), list[float]()
    mine = saves(store)
    for step in (2, 4):
        made = mine.directory / f"checkpoint-{step}"
        made.mkdir()
        (made / "state").write_bytes(os.urandom(1000))
        sealing.clear()
        mine.seal_beside(step, 2, took.append)
        if step == 2:
            assert store.sealed_steps() == [], "it does not count yet, and the training goes on"
            sealing.set()
            mine.wait()
            assert store.sealed_steps() == [2]
    mine._given_up = True
    sealing.set()
    mine.give_up()
    assert store.sealed_steps() == [2]
    assert len(took) == 1


def test_a_save_that_is_written_beside_the_training_is_sealed_once_it_is_written(tmp_path: Path) -> None:
    """By a process that leads and by one that does not; what goes wrong while it is written ends the training."""
    store, may_write = StorePaths(tmp_path), threading.Event()
    mine = saves(store)

    def write() -> None:
        assert may_write.wait(20)
        (mine.directory / "checkpoint-2").mkdir()
        (mine.directory / "checkpoint-2" / "state").write_text("state")

    mine.seal_beside(2, 2, lambda seconds: None, write=write)
    assert store.sealed_steps() == [], "it does not count yet, and the training goes on"
    may_write.set()
    mine.wait()
    assert store.sealed_steps() == [2]

    def fail() -> None:
        raise OSError("no space")

    for leads in (True, False):
        other = Saves(store, FINGERPRINT, None, lambda name, **facts: None, node=Node(0, 1, range(2), leads))
        other.seal_beside(4, 2, lambda seconds: None, write=fail)
        with pytest.raises(OSError, match="no space"):
            other.wait()
        assert store.sealed_steps() == [2]


def test_a_save_holds_the_validations_of_its_time_although_the_training_goes_on(
    tmp_path: Path, sealing: threading.Event
) -> None:
    store = StorePaths(tmp_path)
    mine = saves(store)
    (mine.directory / "checkpoint-2").mkdir()
    (mine.directory / "checkpoint-2" / "state").write_text("state")
    mine.validations[2] = 1.5
    mine.seal_beside(2, 2, lambda seconds: None)
    mine.validations[4] = 0.5
    sealing.set()
    mine.wait()
    again = saves(store)
    assert again.resume() == (2, store.save(2))
    assert again.validations == {2: 1.5}


def test_a_large_newest_save_is_read_by_all_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(shares, "LARGE", 1000)
    store = StorePaths(tmp_path)
    save_together([of_node(store, number, 3, []) for number in range(3)], 2)
    for is_damaged in (False, True):
        team = [of_node(store, number, 3, []) for number in range(3)]
        if is_damaged:
            (store.save(2) / "__2_0.distcp").write_bytes(os.urandom(2002))
        for one in reversed(team):
            one.read_newest()
        with monkeypatch.context() as patch:
            if not is_damaged:
                patch.setattr(hashing, "digest_files", None)  # nothing is read again by one alone
            assert team[0].resume() == (None if is_damaged else (2, store.save(2)))
