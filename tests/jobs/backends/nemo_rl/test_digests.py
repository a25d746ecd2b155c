"""Digests of a save by all nodes of a Ray cluster: of two of them, on this machine, as Ray's own tests have it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.backends.nemo_rl import digests
from jobs.core import hashing, seal, shares
from jobs.core.hashing import Depth

FILES = {f"step/part-{number}": os.urandom(1000 * (number + 1)) for number in range(7)}


@pytest.fixture
def save(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "save" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "save"


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    pytest.importorskip("ray", reason="ray is not installed (it comes with the nemo-run extra)")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield 2
    finally:
        cluster.shutdown()


def expected(save: Path, depth: Depth = Depth.FULL) -> dict[str, hashing.FileDigest]:
    return {entry.path: entry for entry in hashing.digest_files(save, seal.list_files(save), depth)}


@pytest.mark.full
@pytest.mark.parametrize("depth", list(Depth))
def test_every_node_digests_a_share(save: Path, nodes: int, monkeypatch: pytest.MonkeyPatch, depth: Depth) -> None:
    monkeypatch.setattr(shares, "LARGE", 1)
    assert digests.by_all_nodes(save, depth) == expected(save, depth)


@pytest.mark.full
def test_a_node_that_cannot_read_it_is_an_error(save: Path, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LARGE", 1)
    monkeypatch.setattr(digests, "_BOOT", "import sys; sys.exit('no file system here')")
    with pytest.raises(Exception, match="non-zero exit status"):
        digests.by_all_nodes(save, Depth.FULL)


def test_the_shares_of_all_nodes_are_all_files(save: Path) -> None:
    parts = [digests.of_share(save, number, 3, Depth.FULL) for number in range(3)]
    assert all(parts)
    assert shares.digests_of(parts) == expected(save)


def test_what_is_small_or_alone_is_left_to_the_first_node(save: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nobody:1")
    assert digests.by_all_nodes(save, Depth.FULL) == {}
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(shares, "LARGE", 1)
    assert digests.by_all_nodes(save, Depth.FULL) == {}
