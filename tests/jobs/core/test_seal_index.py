"""What seals say is read once an entry: opens and looks at single entries are counted, not timed."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, seal, seal_index
from jobs.core.paths import StorePaths, Workspace
from jobs.lifecycle import space

ENTRIES = 300


def sealed(workspace: Workspace, number: int, size: int = 10, **metrics: Any) -> StorePaths:
    store = workspace.entry("checkpoint", f"{number:016x}" * 4)
    store.output.mkdir(parents=True)
    (store.output / "model").write_bytes(bytes(size))
    facts: dict[str, Any] = {"kind": seal.SealKind.CHECKPOINT, "format": "toy", "fingerprint": f"{number:016x}" * 4}
    seal.seal_directory(store.output, store.seal, **facts, metrics=metrics)
    return store


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "w")
    for number in range(ENTRIES):
        sealed(found, number)
    return found


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a path was opened or asked for, by the name of the call."""
    counted: Counter[str] = Counter()

    def counting(name: str, real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return real(*arguments, **options)

        return call

    for module, name in (
        (builtins, "open"),
        (io, "open"),
        (os, "open"),
        (os, "stat"),
        (os, "lstat"),
        (os, "listdir"),
        (os, "scandir"),
    ):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counted


def bytes_of(workspace: Workspace) -> dict[str, int]:
    """What the index in the workspace says of each entry."""
    lines = [line.split() for line in workspace.seals.read_text().splitlines()[2:]]
    return {name: int(size) for _, size, _, _, name in lines}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed just now cannot change unnoticed: each of these tests waits for the next tick itself."""
    monkeypatch.setattr(files, "SETTLED_NS", 0)


def let_it_settle(workspace: Workspace) -> seal_index.Index:
    """Until the clock of the file system has gone on since the last change of the store."""
    end = time.monotonic() + 10
    while (found := seal_index.read(workspace)).directory is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_a_second_question_opens_no_seal(workspace: Workspace, looked_at: Counter[str]) -> None:
    assert not seal_index.read(workspace).unsealed
    assert len(bytes_of(workspace)) == ENTRIES
    assert looked_at["open"] >= ENTRIES
    looked_at.clear()
    assert space.used_bytes(workspace.store) == ENTRIES * 10
    assert looked_at.total() < 8, looked_at
    sealed(workspace, ENTRIES)
    looked_at.clear()
    assert space.used_bytes(workspace.store) == (ENTRIES + 1) * 10
    assert looked_at.total() < 20, f"the new one is read, and no other: {looked_at}"


@pytest.mark.usefixtures("settled")
def test_a_store_that_has_not_changed_is_not_listed(workspace: Workspace, looked_at: Counter[str]) -> None:
    open_ones = [workspace.entry("checkpoint", f"{ENTRIES + number:016x}") for number in range(3)]
    for store in open_ones:
        store.root.mkdir()
    let_it_settle(workspace)
    looked_at.clear()
    assert space.used_bytes(workspace.store) == ENTRIES * 10
    assert looked_at["scandir"] == 0
    assert looked_at.total() <= 2 + 2 * len(open_ones), f"the index, the store, and the open entries: {looked_at}"
    sealed(workspace, ENTRIES)  # a seal comes into being where the directory of the store shows nothing of it
    assert space.used_bytes(workspace.store) == (ENTRIES + 1) * 10
    assert let_it_settle(workspace).unsealed.keys() == {store.root.name for store in open_ones[1:]}


def test_what_changed_just_now_may_change_once_more(workspace: Workspace) -> None:
    assert seal_index.read(workspace).directory is None


@pytest.mark.usefixtures("settled")
def test_what_is_removed_made_again_or_not_sealed_is_seen(workspace: Workspace) -> None:
    let_it_settle(workspace)
    removed, again, broken = (workspace.entry("checkpoint", f"{number:016x}") for number in range(3))
    shutil.rmtree(removed.root)
    again.root.rename(workspace.store / "aside")
    sealed(workspace, 1, 77)
    os.rename(broken.root, broken.root.with_name("old"))
    broken.root.mkdir()
    found = seal_index.read(workspace)
    assert removed.root.name not in bytes_of(workspace)
    assert bytes_of(workspace)[again.root.name] == 77
    assert set(found.unsealed) == {broken.root.name}
    assert len(bytes_of(workspace)) == ENTRIES - 2 + 2
    assert found.bytes == sum(bytes_of(workspace).values())


def with_sum(text: str) -> str:
    return f"{zlib.crc32(text.encode())}\n{text}"


def header(**changed: Any) -> str:
    """An index with a valid check sum, whose header a stranger has written."""
    honest = {"directory": None, "unsealed": {}, "trainings": [None], "sizes": [5], "lengths": [12]}
    return with_sum(json.dumps({**honest, **changed}) + "\n1 5 - - abcd\n")


DAMAGED = {
    "empty": "",
    "null": "null",
    "binary": "\0" * 100,
    "no check sum": "x\n{}\n",
    "of another text": "17\n{}\n",
    "nested": with_sum("[" * 100_000 + "\n"),
    "a list": with_sum("[]\n"),
    "a huge number": header(sizes=[10**30]),
    "below zero": header(sizes=[-1]),
    "out of the file": header(lengths=[10**6]),
    "a name that leads out": header(unsealed={"../../etc": None}),
    "a name with a NUL": header(unsealed={"a\0b": None}),
    "no numbers": header(directory=["a"]),
    "a training of another shape": header(trainings=[["a"]]),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_index_is_made_again(workspace: Workspace, text: str) -> None:
    wanted = seal_index.read(workspace)
    workspace.seals.write_text(text)
    assert seal_index.read(workspace) == wanted
    assert workspace.seals.read_text() != text


def test_lines_of_a_stranger_are_no_entries(workspace: Workspace) -> None:
    """Where the check sum is theirs, too: what is not listed in the store is not in the answer."""
    wanted = seal_index.read(workspace)
    lines = "1 5 - - ../..\nnonsense\n1 99999999999999999999999999999 - - a\n1 7 - - missing\n"
    workspace.seals.write_text(with_sum(
        json.dumps({"directory": None, "unsealed": {}, "trainings": [None], "sizes": [5], "lengths": [len(lines)]})
        + f"\n{lines}"
    ))  # fmt: skip
    assert seal_index.read(workspace).bytes == wanted.bytes


def test_a_directory_in_the_place_of_the_index_is_only_slower(workspace: Workspace) -> None:
    workspace.seals.mkdir(parents=True)
    assert seal_index.read(workspace).bytes == ENTRIES * 10


def test_steps_are_kept_of_trainings_that_noted_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for number in range(1, 4):
        noted = sealed(workspace, number, step_shape="batch 4", gpu="A100", step_seconds=number / 4)
        os.utime(noted.seal, (number, number))
    other = sealed(workspace, 9, step_shape="batch 4", gpu="A100", step_seconds="soon", peak_memory_bytes=-1)
    os.utime(other.seal, (0, 0))
    sealed(workspace, 10, loss=3.0)
    name = other.root.name.replace
    for _ in range(2):
        found = seal_index.read(workspace)
        (kind,) = found.trainings()
        assert kind == ("batch 4", "A100", "toy", "")
        assert found.steps(kind, 2) == [(name("9", "3"), 0.75, None), (name("9", "2"), 0.5, None)]
        assert found.steps(kind, 100)[-1] == (other.root.name, None, None)
        assert len(found.steps(kind, 100)) == 4


def test_saves_that_stay_in_a_sealed_entry_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    store = workspace.entry("checkpoint", "5" * 64)
    for directory, place in ((store.save(4), store.save_seal(4)), (store.output, store.seal)):
        directory.mkdir(parents=True)
        (directory / "model.bin").write_bytes(b"x" * 30)
        kind = seal.SealKind.SAVE if directory == store.save(4) else seal.SealKind.CHECKPOINT
        seal.seal_directory(directory, place, kind=kind, format="hf", fingerprint="5" * 64)
    assert space.used_bytes(workspace.store) == 60
    assert seal_index.read(workspace).bytes == 60
