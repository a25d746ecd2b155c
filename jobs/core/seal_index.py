"""What the seals of a store say, in one file beside it: a store of 100,000 entries is not read again for each question.

A sealed entry does not change; one that is removed and made again is another directory. So each entry is known by name
and inode, which a listing tells without a look at the entry, and only the seals of new ones are read.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from jobs.core import files, seal, speed
from jobs.core.paths import StorePaths, Workspace


class SealedEntry(NamedTuple):
    """Of a seal: ``bytes`` of its files, ``format``, and ``metrics`` where a training noted how long a step takes."""

    inode: int
    bytes: int
    format: str
    metrics: dict[str, Any]


def read(workspace: Workspace) -> tuple[dict[str, SealedEntry], list[StorePaths]]:
    """The sealed entries of the store by name, and the entries without a valid seal.

    The index is written again where it has changed; without it, or with a damaged one, the answer is only slower.
    """
    known = _load(workspace.seals)
    sealed: dict[str, SealedEntry] = {}
    unsealed = []
    with contextlib.suppress(FileNotFoundError), os.scandir(workspace.store) as entries:
        for entry in entries:
            found = known.get(entry.name)
            if found is None or found.inode != entry.inode():
                found = _of_seal(Path(entry.path) / "seal.json", entry.inode())
            if found is None:
                unsealed.append(StorePaths(Path(entry.path)))
            else:
                sealed[entry.name] = found
    if sealed != known:
        with contextlib.suppress(OSError):
            workspace.cache.mkdir(exist_ok=True)
            files.write_atomic(workspace.seals, json.dumps(sealed, separators=(",", ":")) + "\n")
    return sealed, unsealed


def _of_seal(path: Path, inode: int) -> SealedEntry | None:
    try:
        found = seal.load(path)
    except (OSError, seal.SealBroken):
        return None
    return SealedEntry(inode, found.bytes, found.format, found.metrics if speed.SHAPE in found.metrics else {})


def _load(path: Path) -> dict[str, SealedEntry]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        known = {name: SealedEntry(*row) for name, row in json.loads(path.read_bytes()).items()}
        if all(type(row.inode) is type(row.bytes) is int and isinstance(row.metrics, dict) for row in known.values()):
            return known
    return {}
