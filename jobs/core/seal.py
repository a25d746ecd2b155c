"""Seals: the proof that a directory is complete and unchanged. Exit codes are hints; a seal is the proof.

``seal.json`` lists every file with size and digest (``jobs.core.hashing``) and is written last.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from jobs.core import files, hashing, strict
from jobs.core.hashing import BLOCKS, WHOLE, Depth, FileDigest
from jobs.core.paths import StorePaths
from jobs.core.patience import Patience

SCHEMA = 1
LIGHT_NOTE = "light seal: it does not detect bit flips in the middle of a file"


class SealKind(str, Enum):
    """What kind of thing is sealed; all but ``SAVE`` are store entries."""

    DOWNLOAD = "download"
    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    SAVE = "save"
    EVALUATION = "evaluation"


def shown(path: Path) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


class SealBroken(Exception):
    """A directory does not match its seal, or has none. ``path`` is the file at fault, ``reason`` says how."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Seal:
    """What a finished directory is: its files, the stage that made it, the seals it was made from.

    ``behaviour`` holds what the loader of the stage made of fixed probes (token ids, template digest): the next
    stage's loader must make the same of them.
    """

    kind: SealKind
    format: str
    fingerprint: str
    files: tuple[FileDigest, ...]
    step: int | None = None
    behaviour: dict[str, Any] | None = None
    parents: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    stage: str = ""
    job: str = ""
    restart: int = 0
    depth: Depth = Depth.FULL
    algorithm: str = BLOCKS
    schema: int = SCHEMA

    @property
    def content(self) -> str:
        """Content id (hex): the digest of all paths, sizes and digests; equal content, equal id."""
        text = "\n".join(f"{entry.path}\0{entry.size}\0{entry.digest}" for entry in self.files)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def list_files(directory: Path, leave_out: Iterable[str] = ("seal.json",)) -> list[str]:
    """Relative paths of all regular files below ``directory``, sorted.

    Raises:
        SealBroken: a symbolic link (to a file or a directory) or a special file is among them: its content could change
            behind the seal. Or a name that is not UTF-8, or a directory that cannot be listed.
    """
    skip = set(leave_out)
    found: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(directory / folder))
        except OSError as error:
            raise SealBroken(Path(error.filename or directory), f"cannot be listed: {error.strerror}") from error
        for entry in entries:  # what it is is in the listing: no file is asked for
            relative = f"{folder}{entry.name}"
            if relative in skip:
                continue
            path = directory / relative
            if shown(path) != str(path):
                raise SealBroken(path, "its name is not UTF-8: rename it")
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{relative}/")
            elif entry.is_file(follow_symlinks=False):
                found.append(relative)
            else:
                raise SealBroken(path, "only regular files can be sealed")
    return sorted(found)


def flush_directories(directory: Path) -> None:
    """Flush the names below ``directory``: a file is no better on disk than the names that lead to it."""
    for root, _, _ in os.walk(directory):
        files.fsync_directory(Path(root))


def seal_directory(
    directory: Path,
    seal_path: Path,
    *,
    depth: Depth = Depth.FULL,
    known: Mapping[str, FileDigest] | None = None,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
    **facts: Any,
) -> Seal:
    """Digest ``directory``, flush its files to disk and write the seal last.

    ``known``: files that have been digested and flushed where they were written; of those only the size is compared.
    ``facts`` are the other fields of ``Seal`` (kind, format, fingerprint, step, ...).

    Raises:
        SealBroken: nothing to seal, an empty weights file, or a link among the files.
    """
    files.remove_temporaries(seal_path)  # within the directory it would be sealed, and be gone with the next write
    names = list_files(directory) if directory.is_dir() else []
    if not names:
        raise SealBroken(directory, "is empty: nothing to seal")
    done = {name: known[name] for name in names if known and name in known}
    done = {name: entry for name, entry in done.items() if (directory / name).stat().st_size == entry.size}
    rest = hashing.digest_flushed(directory, [name for name in names if name not in done], depth, threads, on_bytes)
    done |= {entry.path: entry for entry in rest}
    seal = Seal(files=tuple(done[name] for name in names), depth=depth, **facts)
    for name in sorted(set(list_files(directory)) ^ set(names)):
        raise SealBroken(directory / name, "came or went while the directory was sealed: somebody still writes there")
    flush_directories(directory)
    files.fsync_directory(directory.parent)
    write(seal_path, seal)
    return seal


def write(path: Path, seal: Seal) -> None:
    """Write ``seal`` atomically."""
    files.write_atomic(path, as_text(seal))


def as_text(seal: Seal) -> str:
    """What a seal's file holds."""
    return files.json_text(asdict(seal))


def load(path: Path) -> Seal:
    """The seal in a file.

    Raises:
        SealBroken: missing, unreadable, torn, of an unknown schema, or with paths that leave the directory.
    """
    try:
        value = strict.read(path)
    except FileNotFoundError:
        raise SealBroken(path, "no seal: the stage that writes it has not finished") from None
    except (ValueError, OSError) as error:
        raise SealBroken(path, f"unreadable seal: {error}") from error
    try:
        if isinstance(value, dict) and value.get("schema") != SCHEMA:
            raise SealBroken(path, f"schema {value.get('schema')}, this version reads {SCHEMA}")
        seal = strict.build(Seal, value)
    except ValueError as error:
        raise SealBroken(path, f"not a seal: {error}") from error
    if seal.algorithm not in (WHOLE, BLOCKS):
        raise SealBroken(path, f"digests by {seal.algorithm}, this version knows {WHOLE} and {BLOCKS}")
    for entry in seal.files:
        if entry.path.startswith("/") or not {"", ".", ".."}.isdisjoint(entry.path.split("/")) or entry.size < 0:
            raise SealBroken(path, f"names a file outside the directory: {entry.path!r}")
    if len({entry.path for entry in seal.files}) != len(seal.files):
        raise SealBroken(path, "names a file twice")
    return seal


def of_entry(store: StorePaths) -> Seal:
    """The seal of a store entry, compared with the entry's name.

    Raises:
        SealBroken: as ``load``; or it is the seal of another entry: a link or a copy of that lies here.
    """
    found = load(store.seal)
    if store.root.name != store.name_of(found.kind.value, found.fingerprint):
        raise SealBroken(store.seal, f"is the seal of {store.name_of(found.kind.value, found.fingerprint)}")
    return found


def look(store: StorePaths, most: int = 1000) -> Seal:
    """The seal of an entry whose files have their sizes; of more than ``most`` files only so many are looked at: a
    look at many large results takes no minutes.

    Raises:
        SealBroken: as ``of_entry`` and ``check_sizes``.
    """
    found = of_entry(store)
    _check_sizes(store.output, found.files[:: max(1, -(-len(found.files) // most))])
    return found


def digest_of(seal_path: Path) -> str:
    """Digest of the seal file itself: how a child names its parent."""
    return hashing.digest_file(seal_path)


def verify(
    directory: Path,
    seal_path: Path,
    *,
    patience: Patience | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Seal:
    """Compare ``directory`` with its seal: no file missing, none cut, none changed.

    Sizes are compared for all files before any is read, so a cut file is reported at once. With ``patience`` what is
    missing or of another size is looked at again (NFS shows a directory and a size as they were up to a minute ago),
    and so is what cannot be read; a file whose content differs is read once more.

    Raises:
        SealBroken: with the file and what is wrong with it; ``patience.passes`` says whether it could not be read.
    """
    waits = patience or Patience(0.0)
    seal = check_sizes(directory, seal_path, waits)
    _check_content(directory, seal, seal.files, patience, on_bytes)
    waits.call(lambda: check_listing(directory, seal))
    return seal


def check_files(directory: Path, seal: Seal, entries: Sequence[FileDigest]) -> None:
    """Compare some files of a sealed directory with its seal: sizes first, then the content.

    Raises:
        SealBroken: with the file and what is wrong with it.
    """
    _check_sizes(directory, entries)
    _check_content(directory, seal, entries)


def _check_content(
    directory: Path,
    seal: Seal,
    entries: Sequence[FileDigest],
    patience: Patience | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    def digests(names: list[str]) -> tuple[FileDigest, ...]:
        try:
            return hashing.digest_files(directory, names, seal.depth, on_bytes, seal.algorithm)
        except OSError as error:
            raise SealBroken(Path(error.filename or directory), f"cannot be read: {error.strerror}") from error

    found = (patience or Patience(0.0)).call(lambda: digests([entry.path for entry in entries]))
    for entry, other in zip(entries, found, strict=True):
        if other.digest != entry.digest and (patience is None or digests([entry.path])[0].digest != entry.digest):
            raise SealBroken(directory / entry.path, "content differs from its seal (same size, other digest)")


def check_listing(directory: Path, seal: Seal) -> None:
    """Look for files that the seal does not know.

    Raises:
        SealBroken: there is one.
    """
    extra = sorted(set(list_files(directory)) - {entry.path for entry in seal.files})
    if extra:
        raise SealBroken(directory / extra[0], "is not in the seal: it was added afterwards")


def check_sizes(directory: Path, seal_path: Path, patience: Patience | None = None) -> Seal:
    """The quick look: seal readable, every file there with its sealed size. Does not read the files.

    Raises:
        SealBroken: with the file and what is wrong with it.
    """

    def look() -> Seal:
        seal = load(seal_path)
        _check_sizes(directory, seal.files)
        return seal

    return (patience or Patience(0.0)).call(look, lambda error: isinstance(error, SealBroken))


def _check_sizes(directory: Path, entries: Iterable[FileDigest]) -> None:
    for entry in entries:
        path = directory / entry.path
        try:
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise SealBroken(path, f"is missing ({entry.size} bytes sealed)") from None
        except OSError as error:
            raise SealBroken(path, f"cannot be read: {error.strerror}") from error
        if size != entry.size:
            raise SealBroken(path, f"has {size} bytes, sealed with {entry.size}")
