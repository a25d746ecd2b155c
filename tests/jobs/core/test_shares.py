"""Nodes that digest what they wrote and read shares: every file once, and no node that is missing goes unnoticed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from jobs.core import hashing, seal, shares
from jobs.core.hashing import Depth
from jobs.core.shares import Node

FACTS = {"kind": seal.SealKind.SAVE, "format": "trainer", "fingerprint": "f" * 64}


def nodes(count: int, processes: int = 2) -> list[Node]:
    return [Node(number, count, range(processes * number, processes * (number + 1))) for number in range(count)]


def write(directory: Path, ranks: int, size: int = 1000) -> list[str]:
    """A save as torch.distributed.checkpoint, transformers and Megatron write it."""
    names = [f"model/__{rank}_0.distcp" for rank in range(ranks)]
    names += [f"rng_state_{rank}.pth" for rank in range(ranks)]
    names += ["model/.metadata", "trainer_state.json", "model-00001-of-00002.safetensors"]
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(os.urandom(size))
    return names


def test_every_file_is_digested_by_one_node_and_the_seal_is_that_of_one_process(tmp_path: Path) -> None:
    made = tmp_path / "made"
    names = write(made, 8)
    parts = [shares.digest_written(made, node, Depth.FULL) for node in nodes(4)]
    assert sorted(entry.path for part in parts for entry in part) == sorted(names)
    assert [len(part) for part in parts] == [7, 4, 4, 4], "the first one has what no rank is named for"
    known = shares.digests_of(shares.as_answer(part) for part in parts)
    together = seal.seal_directory(made, tmp_path / "a.json", known=known, **FACTS)
    assert together == seal.seal_directory(made, tmp_path / "b.json", **FACTS)


def test_a_file_that_grew_after_its_digest_is_digested_again(tmp_path: Path) -> None:
    made = tmp_path / "made"
    write(made, 2)
    known = {entry.path: entry for entry in shares.digest_written(made, nodes(1)[0], Depth.FULL)}
    with open(made / "trainer_state.json", "ab") as stream:
        stream.write(b"more")
    seal.seal_directory(made, tmp_path / "seal.json", known=known, **FACTS)
    seal.verify(made, tmp_path / "seal.json")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_are_all_files_once_and_about_as_large(tmp_path: Path, count: int) -> None:
    entries = [hashing.FileDigest(f"{number}", 100 + number % 7, "") for number in range(200)]
    dealt = [node.share(entries) for node in nodes(count)]
    assert sorted(entry.path for one in dealt for entry in one) == sorted(entry.path for entry in entries)
    loads = [sum(entry.size for entry in one) for one in dealt]
    assert max(loads) - min(loads) <= 107


@pytest.mark.failure(1)
@pytest.mark.parametrize("damage", ["changed", "cut", "added"])
def test_one_of_the_nodes_finds_what_is_damaged(tmp_path: Path, damage: str) -> None:
    made = tmp_path / "made"
    write(made, 8)
    sealed = seal.seal_directory(made, tmp_path / "seal.json", **FACTS)
    victim = made / "model" / "__5_0.distcp"
    data = victim.read_bytes()
    if damage == "added":
        (made / "late").write_text("late")
    else:
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "changed" else data[:-1])
    found = []
    for node in nodes(4):
        try:
            shares.check_share(made, sealed, node)
        except seal.SealBroken as error:
            found.append(error)
    assert len(found) == 1
    assert found[0].path == (made / "late" if damage == "added" else victim)


def test_the_answers_of_all_nodes_are_waited_for_and_an_error_is_one(tmp_path: Path) -> None:
    first, second = nodes(2)
    shares.answer(tmp_path, "part", first, [1])
    threading.Timer(0.3, shares.answer, (tmp_path, "part", second, [2])).start()
    assert shares.answers(tmp_path, "part", 2, 30.0) == [[1], [2]]
    shares.answer(tmp_path, "part", second, seal.SealBroken(tmp_path / "x", "has 1 bytes, sealed with 2"))
    with pytest.raises(seal.SealBroken, match="has 1 bytes, sealed with 2") as caught:
        shares.answers(tmp_path, "part", 2, 30.0)
    assert caught.value.path == tmp_path / "x"
    with pytest.raises(TimeoutError, match="1 of 3 nodes left no part, the first of them is number 2"):
        shares.answers(tmp_path, "part", 3, 0.0)


def test_a_node_by_the_variables_of_torchrun_and_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "SLURM_NODEID": "2", "SLURM_NNODES": "3"}.items():
        monkeypatch.setenv(name, value)
    assert Node.of(9, 12) == Node(2, 3, range(8, 12), leads=False)
    assert Node.of(0, 1) == Node(), "one process is alone on however many nodes"
