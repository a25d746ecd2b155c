"""What the seals of a store say, in one file beside it: a store of 100,000 entries is not read again for each question.

A sealed entry does not change; one that is removed and made again is another directory. So each is known by name and
inode, which a listing tells without a look at the entry, and only the seals of new ones are read. While the directory
of the store has not changed it is not even listed: then only the entries without a seal are looked at.

The file is a cache: damaged or out of date it is made again. Its lines: a check sum of the rest; a header in JSON; one
line an entry, ``inode bytes seconds memory name``, those of like trainings together. The header says how many bytes the
lines of each kind take, so that one kind can be read without the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jobs.core import files, seal, speed, strict
from jobs.core.files import FileState
from jobs.core.paths import StorePaths, Workspace

_CONFIGS = ("config.json", "hf/config.json")
_NAME = r"\w[\w.-]*"
"""Names of entries that we make; others are looked at each time."""

_STEP = r"(-|\d+\.?\d*(?:e[+-]\d+)?)"
_LINE = re.compile(rf"^(\d{{1,20}}) (\d{{1,20}}) {_STEP} {_STEP} ({_NAME})$", re.ASCII | re.MULTILINE)


class Training(NamedTuple):
    """What makes steps of sealed trainings alike: ``shape``, ``gpu`` and ``backend`` as their seals note them, and the
    digest of the model's configuration (empty: the seal does not list it)."""

    shape: str
    gpu: str
    backend: str
    config: str


class StepTime(NamedTuple):
    """What a step of a sealed training took: seconds, and bytes on the GPU; None: not noted."""

    name: str
    seconds: float | None
    memory: float | None


class _Group(NamedTuple):
    """Entries that are alike (``training`` None: no step is noted of them): size of their files, and their lines."""

    training: Training | None
    size: int
    lines: bytes


@dataclass(frozen=True)
class Index:
    """What the seals of a store say. ``directory``: of the store as it was listed; None: it may have changed since.
    ``unsealed``: names of the entries without a valid seal, each with the file that stands in the place of one."""

    directory: FileState | None
    unsealed: dict[str, FileState | None]
    groups: tuple[_Group, ...] = ()

    @property
    def bytes(self) -> int:
        """Of the files of all sealed entries, and of the saves that stay in them."""
        return sum(group.size for group in self.groups)

    def trainings(self) -> list[Training]:
        """The kinds of trainings of which steps are noted."""
        return [group.training for group in self.groups if group.training is not None]

    def steps(self, training: Training, most: int) -> list[StepTime]:
        """What steps of trainings of a kind took: of the last ones that were sealed, the newest first."""
        lines = next(group.lines for group in self.groups if group.training == training)
        last = b"\n".join(lines.rsplit(b"\n", most + 1)[-most - 1 :]).decode()
        return [StepTime(line[5], _number(line[3]), _number(line[4])) for line in _LINE.finditer(last)][::-1]

    def holds(self, store: Path) -> bool:
        """Whether the store is as it was."""
        same = self.directory is not None and self.directory == files.state(store)
        return same and all(files.state(StorePaths(store / name).seal) == was for name, was in self.unsealed.items())


def read(workspace: Workspace) -> Index:
    """The index of the store, brought up to date; where it cannot be kept the answer is only slower."""
    known = _load(workspace.seals)
    if known is not None and known.holds(workspace.store):
        return known
    now: os.stat_result | None = None
    with contextlib.suppress(OSError):
        workspace.cache.mkdir(exist_ok=True)
        now = files.mark(workspace.cache)
    before = files.state(workspace.store)
    found = _listed(workspace.store, () if known is None else known.groups)
    if now is not None and before is not None and before == files.state(workspace.store):
        # What changed just now, by the file system's own clock, may change once more and keep its time of change.
        settled = now.st_mtime_ns - max(before[2:]) > files.SETTLED_NS
        if settled and now.st_dev == os.stat(workspace.store).st_dev:
            found = replace(found, directory=before)
    if found != known:
        with contextlib.suppress(OSError):
            files.write_atomic(workspace.seals, _text(found))
    return found


def _listed(store: Path, known: Iterable[_Group]) -> Index:
    """List the store, and read the seals of entries that are not ``known``."""
    there: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(store) as entries:
        there = {entry.name: entry.inode() for entry in entries}
    sizes: dict[Training | None, int] = {}
    lines: dict[Training | None, list[str]] = {}
    for group in known:
        sizes[group.training], kept = 0, lines.setdefault(group.training, [])
        for line in _LINE.finditer(group.lines.decode()):
            if there.get(line[5]) == int(line[1]):
                del there[line[5]]
                sizes[group.training] += int(line[2])
                kept.append(line[0])
    seals = {name: files.state(StorePaths(store / name).seal) for name in there}
    unsealed: dict[str, FileState | None] = {}
    for name in sorted(there, key=lambda name: (seals[name] or (0,) * 4)[2]):  # the newest last
        found = None if seals[name] is None else _of_seal(StorePaths(store / name))
        if found is None or not re.fullmatch(_NAME, name, re.ASCII):
            unsealed[name] = seals[name]
            continue
        training, size, step = found
        sizes[training] = sizes.get(training, 0) + size
        lines.setdefault(training, []).append(f"{there[name]} {size} {step} {name}")
    groups = (_Group(kind, sizes[kind], "".join(f"{one}\n" for one in kept).encode()) for kind, kept in lines.items())
    return Index(None, unsealed, tuple(group for group in groups if group.lines))


def _of_seal(store: StorePaths) -> tuple[Training | None, int, str] | None:
    """What is kept of a sealed entry: of its size that of the saves that stay in it, too. None: no valid seal."""
    try:
        found = seal.load(store.seal)
    except (OSError, seal.SealBroken):
        return None
    noted, training = found.metrics, None
    if speed.SHAPE in noted:
        digests = {entry.path: entry.digest for entry in found.files}
        config = next((digests[name] for name in _CONFIGS if name in digests), "")
        backend = noted.get(speed.BACKEND, found.format)  # nemo's first seals say it so
        training = Training(str(noted[speed.SHAPE]), str(noted.get(speed.GPU)), str(backend), config)
    size = found.bytes + (saved_bytes(store) if found.kind is seal.SealKind.CHECKPOINT else 0)
    return training, size, " ".join(_shown(noted.get(name)) for name in (speed.SECONDS, speed.MEMORY))


def saved_bytes(store: StorePaths) -> int:
    """Of the sealed saves of an entry, by their seals."""
    return sum(sealed_bytes(store.save_seal(step)) for step in store.sealed_steps())


def sealed_bytes(path: Path) -> int:
    """By a seal; 0 where it cannot be read."""
    try:
        return seal.load(path).bytes
    except (OSError, ValueError, seal.SealBroken):
        return 0  # its verification will say so


def _shown(value: Any) -> str:
    text = repr(float(value)) if type(value) in (int, float) else ""
    return text if re.fullmatch(_STEP, text) else "-"


def _number(text: str) -> float | None:
    return None if text == "-" else float(text)


@dataclass(frozen=True)
class _Header:
    """Of each group its training, the size of its files, and the bytes that its lines take."""

    directory: tuple[int, ...] | None
    unsealed: dict[str, tuple[int, ...] | None]
    trainings: tuple[tuple[str, ...] | None, ...]
    sizes: tuple[int, ...]
    lengths: tuple[int, ...]


def _text(index: Index) -> str:
    groups = index.groups
    header = _Header(
        index.directory,
        index.unsealed,
        tuple(group.training for group in groups),
        tuple(group.size for group in groups),
        tuple(len(group.lines) for group in groups),
    )
    rest = "".join([json.dumps(vars(header)), "\n", *(group.lines.decode() for group in groups)])
    return f"{zlib.crc32(rest.encode())}\n{rest}"


def _load(path: Path) -> Index | None:
    """The index that was kept; None: there is none, or it is damaged."""
    try:
        check, _, rest = strict.content(path).partition(b"\n")
        if int(check) != zlib.crc32(rest):
            return None
        text, _, body = rest.partition(b"\n")
        header = strict.build(_Header, strict.parse(text))
        if any("/" in name for name in header.unsealed) or sum(header.lengths) != len(body):
            return None
        return Index(header.directory, header.unsealed, tuple(_groups(header, body)))
    except (OSError, ValueError, TypeError):
        return None


def _groups(header: _Header, body: bytes) -> Iterator[_Group]:
    start = 0
    for training, size, length in zip(header.trainings, header.sizes, header.lengths, strict=True):
        if min(size, length) < 0:
            raise ValueError("a size below zero")
        yield _Group(None if training is None else Training(*training), size, body[start : start + length])
        start += length
