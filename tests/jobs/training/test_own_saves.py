"""Saves become those of the entry, and go, by way of the directory of one start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.core import claim, files, seal
from jobs.core.claim import Claim, ClaimLost
from jobs.core.hashing import Depth
from jobs.core.paths import StorePaths
from jobs.training.own_saves import VALIDATIONS, OwnSaves


@pytest.fixture
def own(tmp_path: Path) -> OwnSaves:
    """Of a start that holds the entry."""
    store, held = StorePaths(tmp_path), Claim("aaaaaa", 0, 0, "100", "node1", 0.0)
    assert claim.take(store, held) is None
    return OwnSaves(store, "f" * 64, held, Depth.FULL, True, lambda done: None)


def test_what_was_put_before_an_error_is_not_put_again(tmp_path: Path, own: OwnSaves) -> None:
    store = StorePaths(tmp_path)
    (own.directory / "checkpoint-4").mkdir()
    (own.directory / "checkpoint-4" / "model").write_text("model")
    own.put(4, {2: 0.5}, {}, None)
    own.put(4, {2: 0.5}, {}, None)
    assert seal.verify(store.save(4), store.save_seal(4)).step == 4
    assert files.read_json_or_none(store.save(4) / VALIDATIONS) == [[2, 0.5]]
    with pytest.raises(seal.SealBroken, match="nothing to seal"):
        own.put(6, {}, {}, None)
    own.remove(4)
    assert store.save_steps() == []


def test_where_the_directory_was_taken_away_nothing_is_put_or_removed(tmp_path: Path, own: OwnSaves) -> None:
    store = StorePaths(tmp_path)
    (own.directory / "checkpoint-4").mkdir()
    (own.directory / "checkpoint-4" / "model").write_text("model")
    own.put(4, {}, {}, None)
    later = Claim("aaaaaa", 0, 1, "100", "node2", 1.0)
    assert claim.take(store, later) is None
    shutil.rmtree(own.directory)
    with pytest.raises(ClaimLost):
        own.put(6, {}, {}, None)
    with pytest.raises(ClaimLost):
        own.remove(4)
    assert store.save_steps() == [4]
