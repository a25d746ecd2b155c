"""Digests of files, on all cores.

SHA-256 because every Python has it, OpenSSL uses the CPU's SHA instructions, and hashlib releases the interpreter lock,
so threads add up. Large files are digested by blocks: one file of 10 GB would else keep one core busy and the others
idle.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jobs.core import files

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


@dataclass(frozen=True)
class FileDigest:
    """One file: path relative to its directory, size in bytes, hex digest."""

    path: str
    size: int
    digest: str


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
