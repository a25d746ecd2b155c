"""Seals: the proof that a directory is complete and unchanged. Exit codes are hints; a seal is the proof.

``seal.json`` lists every file with size and SHA-256 digest and is written last. SHA-256 because every Python has it,
OpenSSL uses the CPU's SHA instructions, and hashlib releases the interpreter lock, so threads add up. Large files are
digested by blocks: one file of 10 GB would else keep one core busy and the others idle.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from jobs.core import files, strict
from jobs.core.paths import StorePaths
from jobs.core.patience import Patience

SCHEMA = 1
WHOLE = "sha256"
"""Of a whole file, as ``sha256sum`` prints it."""

BLOCKS = "sha256-64MiB"
"""The same up to 64 MiB; of a larger file the SHA-256 of the SHA-256 digests (32 bytes each) of its 64 MiB blocks."""

BLOCK_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20  # stays in the second-level cache between the read and the digest
_ENDS_BYTES = 1 << 20
_MOST_THREADS = 64


class Depth(str, Enum):
    """How much of each file is read. ``LIGHT`` (size, first and last MiB) does not detect bit flips in between."""

    FULL = "full"
    LIGHT = "light"


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
class FileDigest:
    """One sealed file: path relative to the sealed directory, size in bytes, hex digest."""

    path: str
    size: int
    digest: str


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


def digest_file(path: Path, depth: Depth = Depth.FULL) -> str:
    """Hex digest of a file's content (``FULL``) or of its size, first and last MiB (``LIGHT``)."""
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if depth is Depth.FULL:
            return _sha256(stream, 0, None).hex()
        hasher = hashlib.sha256(str(size).encode())
        hasher.update(stream.read(_ENDS_BYTES))
        stream.seek(max(0, size - _ENDS_BYTES))
        hasher.update(stream.read(_ENDS_BYTES))
        return hasher.hexdigest()


def _sha256(stream: io.FileIO, offset: int, count: int | None) -> bytes:
    """Digest of at most ``count`` bytes (None: all) from ``offset`` on."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    stream.seek(offset)
    left = count
    while left is None or left > 0:
        got = stream.readinto(buffer if left is None else buffer[:left])
        if not got:
            break
        hasher.update(buffer[:got])
        left = None if left is None else left - got
    return hasher.digest()


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


def digest_files(
    directory: Path,
    names: list[str],
    depth: Depth = Depth.FULL,
    on_bytes: Callable[[int], None] | None = None,
    algorithm: str = BLOCKS,
    threads: int | None = None,
) -> tuple[FileDigest, ...]:
    """Digest ``names`` below ``directory`` on all cores (or in so many ``threads``), in the given order.

    ``on_bytes`` is called with the bytes that have been looked at since its last call, from several threads.
    """
    sizes = [(directory / name).stat().st_size for name in names]
    step = BLOCK_BYTES if algorithm == BLOCKS and depth is Depth.FULL else None

    def one(piece: tuple[int, int, int]) -> bytes:
        number, offset, count = piece
        path = directory / names[number]
        if depth is Depth.LIGHT:
            value = bytes.fromhex(digest_file(path, depth))
        else:
            with open(path, "rb", buffering=0) as stream:
                value = _sha256(stream, offset, count)
        if on_bytes is not None:
            on_bytes(count)
        return value

    pieces = [
        (number, offset, min(size - offset, step or size))
        for number, size in enumerate(sizes)
        for offset in range(0, max(1, size), step or max(1, size))
    ]
    found: list[list[bytes]] = [[] for _ in names]
    from concurrent.futures import ThreadPoolExecutor  # `overnight plan` digests nothing

    with ThreadPoolExecutor(max_workers=threads or _threads(len(pieces))) as pool:
        for (number, _, _), value in zip(pieces, pool.map(one, pieces), strict=True):
            found[number].append(value)
    return tuple(FileDigest(name, size, _joined(parts)) for name, size, parts in zip(names, sizes, found, strict=True))


def _joined(parts: list[bytes]) -> str:
    return (parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(parts)).digest()).hex()


def _threads(pieces: int) -> int:
    """Two for each core that we may use: one waits for the disk while the other digests."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pieces, 2 * cores, _MOST_THREADS))


def digest_flushed(
    directory: Path,
    names: list[str],
    depth: Depth = Depth.FULL,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[FileDigest, ...]:
    """Digests of ``names``, which are flushed to disk while the cores digest (of what is in memory): the disk takes
    longer than they do."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as disk:
        flushed = disk.map(files.flush, [directory / name for name in names])
        found = digest_files(directory, names, depth, on_bytes, threads=threads)
        list(flushed)  # raises what a flush has raised
    return found


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
    names = list_files(directory) if directory.is_dir() else []
    if not names:
        raise SealBroken(directory, "is empty: nothing to seal")
    done = {name: known[name] for name in names if known and name in known}
    done = {name: entry for name, entry in done.items() if (directory / name).stat().st_size == entry.size}
    rest = digest_flushed(directory, [name for name in names if name not in done], depth, threads, on_bytes)
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
    """The seal of a store entry, held against the entry's name.

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
    return digest_file(seal_path)


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
            return digest_files(directory, names, seal.depth, on_bytes, seal.algorithm)
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
