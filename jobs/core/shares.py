"""Work of the size of a checkpoint, shared by the nodes of a job: each digests what its own processes wrote, or reads a
share, and leaves the answer in a file; the first process collects them.

Files and no collectives: a thread beside the training must not use the groups of the trainer, and a back end may have
none. One process of a node takes part, so that 1,000 nodes leave 1,000 files, however many processes they have.
"""

from __future__ import annotations

import heapq
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.core import files, hashing, seal, strict
from jobs.core.hashing import Depth, FileDigest
from jobs.core.seal import Seal, SealBroken

LARGE = 64 << 30
"""Bytes from which on several nodes read together what one would read alone in a minute or less."""

LEAST_SECONDS, SLOWER = 600.0, 10.0
"""How long the answers of other nodes are waited for: so long, and so many times what this node's own took."""

_POLL_SECONDS = 1.0
_WRITER = re.compile(r"(?:__|rng_state_)(\d+)(?:_\d+)?\.(?:distcp|pth)\Z")
"""Of torch.distributed.checkpoint, Megatron's and AutoModel's among them, and of transformers: the rank that wrote."""


@dataclass(frozen=True)
class Node:
    """Where this process is among the nodes of its job. ``ranks``: of its node; ``leads``: it answers for the node."""

    number: int = 0
    count: int = 1
    ranks: range = range(1)
    leads: bool = True

    @classmethod
    def of(cls, rank: int, world: int) -> Node:
        """By the variables of torchrun and Slurm; a single process is alone, however many nodes its job has."""
        env = os.environ
        if world == 1:
            return cls()
        local = int(env.get("LOCAL_RANK") or env.get("SLURM_LOCALID") or 0)
        ranks = range(rank - local, rank - local + int(env.get("LOCAL_WORLD_SIZE") or 1))
        return cls(int(env.get("SLURM_NODEID") or 0), int(env.get("SLURM_NNODES") or 1), ranks, local == 0)

    @property
    def collects(self) -> bool:
        """Whether it collects the answers of all."""
        return self.leads and 0 in self.ranks

    def wrote(self, names: Iterable[str]) -> list[str]:
        """Those files that processes of this node wrote. A name that tells no rank is the first one's."""
        found = ((name, _WRITER.search(name)) for name in names)
        return [name for name, writer in found if (int(writer[1]) if writer else 0) in self.ranks]

    def share(self, entries: Sequence[FileDigest]) -> list[FileDigest]:
        """Files that this node reads of those that all read together: as many bytes for each as can be."""
        loads = [(0, number) for number in range(self.count)]
        mine = []
        for entry in sorted(entries, key=lambda entry: (-entry.size, entry.path)):
            bytes_before, least = loads[0]
            heapq.heapreplace(loads, (bytes_before + entry.size, least))
            if least == self.number:
                mine.append(entry)
        return mine


def digest_written(
    directory: Path, node: Node, depth: Depth, threads: int | None = None, on_bytes: Callable[[int], None] | None = None
) -> tuple[FileDigest, ...]:
    """Digests of what this node wrote below ``directory``, and has flushed to disk: no other node can do that."""
    names = node.wrote(seal.list_files(directory))
    found = hashing.digest_flushed(directory, names, depth, threads, on_bytes)
    seal.flush_directories(directory)
    return found


def check_share(directory: Path, sealed: Seal, node: Node) -> None:
    """Read this node's share of what is sealed; the one that collects also looks for files that are not.

    Raises:
        SealBroken: with the file and what is wrong with it.
    """
    seal.check_files(directory, sealed, node.share(sealed.files))
    if node.collects:
        seal.check_listing(directory, sealed)


def answer(desk: Path, topic: str, node: Node, value: Any) -> None:
    """Leave the answer of this node in ``desk``; an exception is one, too."""
    if isinstance(value, Exception):
        value = {"error": getattr(value, "reason", str(value)), "path": str(getattr(value, "path", desk))}
    files.make_directory(desk)
    files.write_json(_file(desk, topic, node.number), {"value": value})


def _file(desk: Path, topic: str, number: int) -> Path:
    return desk / f"{topic}-{number}.json"


def answers(desk: Path, topic: str, count: int, seconds: float, ended: Callable[[], None] = lambda: None) -> list[Any]:
    """The answers of ``count`` nodes, once all are there. ``ended`` is called while it waits, and may raise.

    Raises:
        SealBroken: one of them found something wrong.
        ValueError: one of them left something else.
        TimeoutError: one left no answer in ``seconds``; its number is in the message.
    """
    end = time.monotonic() + seconds
    wanted = {_file(desk, topic, number).name: number for number in range(count)}
    while missing := wanted.keys() - set(files.fresh_names(desk)):
        ended()
        if time.monotonic() > end:
            first = min(wanted[name] for name in missing)
            raise TimeoutError(f"{len(missing)} of {count} nodes left no {topic}, the first of them is number {first}")
        time.sleep(_POLL_SECONDS)
    found = [_answer(desk / name) for name in wanted]
    for value in found:
        if isinstance(value, dict) and "error" in value:
            raise SealBroken(Path(str(value.get("path"))), str(value["error"]))
    return found


def _answer(path: Path) -> Any:
    found = files.read_json(path)
    if not isinstance(found, dict) or "value" not in found:
        raise ValueError(f"{path}: not an answer of a node")
    return found["value"]


def all_answered(desk: Path, topic: str, count: int) -> bool:
    """Whether ``count`` nodes have left an answer."""
    return all(_file(desk, topic, number).exists() for number in range(count))


def digests_of(found: Iterable[Any]) -> dict[str, FileDigest]:
    """What ``digest_written`` of several nodes returned, as they left it, by name.

    Raises:
        ValueError: it is not that.
    """
    try:
        entries = [one for part in found for one in strict.convert(tuple[FileDigest, ...], part, "digests")]
    except ValueError as error:
        raise ValueError(f"what a node left is not its digests: {error}") from error
    return {entry.path: entry for entry in entries}


def as_answer(found: Iterable[FileDigest]) -> list[dict[str, Any]]:
    """What ``digests_of`` reads."""
    return [asdict(entry) for entry in found]
