"""Files to shards: each shard is a list of pieces, each piece a file or a range of lines of one.

Where shards are cut depends on sizes only. What comes out does not depend on the cuts: documents keep the order of
files (by path) and lines, and everything that needs all documents is decided over all shards.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_prep.common.errors import DataError
from data_prep.sources import formats
from data_prep.sources.files import changed
from data_prep.sources.layout import order
from jobs.core.spec import Source

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Piece:
    """Bytes ``start`` to ``end`` of a file (lines that begin there), or all of it; ``line``: newlines before ``start``.

    ``group``: 0 for the corpus itself, then the replay sources in their order; ``split``: the split that the file is
    of, empty where it is of none.
    """

    path: str
    start: int
    end: int
    line: int
    group: int
    split: str = ""


@dataclass(frozen=True)
class Scanned:
    """What one reading of a file told: digest, size, and (byte, newlines before it) of every possible cut."""

    source: Source
    mtime_ns: int
    cuts: tuple[tuple[int, int], ...]


def scan(
    sources: Iterable[Source], cut_bytes: int, progress: Callable[[int, int], None], encoding: str | None = None
) -> list[Scanned]:
    """Every file with its digest and, where it can be divided, its lines counted; each is read once.

    A source without a digest gets one; one with a digest is compared with it. ``encoding``: as the recipe declares it.

    Raises:
        DataError: a file is missing, empty or not the one that was planned with.
    """
    ordered = sorted(sources, key=lambda source: source.path)
    total = sum(source.size for source in ordered)
    done = 0
    found: list[Scanned] = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for one in pool.map(lambda source: _scan(source, cut_bytes, encoding), ordered):
            found.append(one)
            done += one.source.size
            progress(done, total)
    return found


def _scan(source: Source, cut_bytes: int, encoding: str | None) -> Scanned:
    hasher = hashlib.sha256()
    size = lines = 0
    cuts = [(0, 0)]
    try:
        divided = formats.look(source.path, encoding).can_be_cut
        with open(source.path, "rb", buffering=0) as stream:
            mtime = os.fstat(stream.fileno()).st_mtime_ns
            while chunk := stream.read(min(_CHUNK, cut_bytes - size % cut_bytes) if divided else _CHUNK):
                hasher.update(chunk)
                size += len(chunk)
                if divided:
                    lines += chunk.count(b"\n")
                    if size % cut_bytes == 0:
                        cuts.append((size, lines))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source.path) from error
    if source.sha256 and hasher.hexdigest() != source.sha256:
        raise changed(source, hasher.hexdigest(), size)
    cuts = [cut for cut in cuts if cut[0] < size] or [(0, 0)]
    return Scanned(Source(source.path, hasher.hexdigest(), size), mtime, tuple(cuts))


def shards(
    groups: Sequence[Sequence[Scanned]], shard_bytes: int, split_of: Mapping[str, str] | None = None
) -> list[list[Piece]]:
    """Pieces of all groups in order, put together to shards of at least ``shard_bytes`` (packed files as they are).

    ``split_of``: the split of files that have one; held-out ones come first, so that they are what stays of duplicates.
    """
    split_of = split_of or {}
    found: list[list[Piece]] = [[]]
    filled = 0
    for number, group in enumerate(groups):
        for one in sorted(group, key=lambda one: order(split_of.get(one.source.path, ""))):
            split = "" if number else split_of.get(one.source.path, "")
            bounds = [*one.cuts, (one.source.size, 0)]
            for (start, line), (end, _) in itertools.pairwise(bounds):
                if filled >= shard_bytes:
                    found.append([])
                    filled = 0
                found[-1].append(Piece(one.source.path, start, end, line, number, split))
                filled += end - start
    return [shard for shard in found if shard]
