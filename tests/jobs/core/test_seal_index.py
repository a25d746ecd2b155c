"""What seals say is read once an entry: opens and looks at single entries are counted, not timed."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.core import seal, seal_index
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

    for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "lstat"), (os, "listdir")):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counted


def test_a_second_question_opens_no_seal(workspace: Workspace, looked_at: Counter[str]) -> None:
    first, unsealed = seal_index.read(workspace)
    assert len(first) == ENTRIES
    assert not unsealed
    assert looked_at["open"] >= ENTRIES
    looked_at.clear()
    assert space.used_bytes(workspace.store) == ENTRIES * 10
    assert looked_at.total() < 5, looked_at
    sealed(workspace, ENTRIES)
    looked_at.clear()
    assert space.used_bytes(workspace.store) == (ENTRIES + 1) * 10
    assert looked_at.total() < 20, f"the new one is read, and no other: {looked_at}"


def test_what_is_removed_made_again_or_not_sealed_is_seen(workspace: Workspace) -> None:
    seal_index.read(workspace)
    removed, again, broken = (workspace.entry("checkpoint", f"{number:016x}") for number in range(3))
    shutil.rmtree(removed.root)
    again.root.rename(workspace.store / "aside")
    sealed(workspace, 1, 77)
    os.rename(broken.root, broken.root.with_name("old"))
    broken.root.mkdir()
    found, unsealed = seal_index.read(workspace)
    assert removed.root.name not in found
    assert found[again.root.name].bytes == 77
    assert [entry.root for entry in unsealed] == [broken.root]
    assert len(found) == ENTRIES - 2 + 2


@pytest.mark.parametrize("text", ["", "null", "[]", "[" * 100_000, '{"checkpoint-0000000000000001": [1]}', '{"a": 3}'])
def test_a_damaged_index_is_made_again(workspace: Workspace, text: str) -> None:
    wanted = seal_index.read(workspace)
    workspace.seals.write_text(text)
    assert seal_index.read(workspace) == wanted
    assert workspace.seals.read_text() != text


def test_metrics_are_kept_of_trainings_that_noted_a_step(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    noted = sealed(workspace, 1, step_shape="batch 4", gpu="A100")
    other = sealed(workspace, 2, loss=3.0)
    for _ in range(2):
        found, _ = seal_index.read(workspace)
        assert found[noted.root.name].metrics == {"step_shape": "batch 4", "gpu": "A100"}
        assert found[other.root.name].metrics == {}
