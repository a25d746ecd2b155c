"""Megatron's indexed data set (``PREFIX.bin`` and ``PREFIX.idx``), written, joined and read without Megatron.

The layout, little-endian, as ``megatron.core.datasets.indexed_dataset`` of 0.15 writes it::

    "MMIDIDX\\0\\0"  u64 version = 1  u8 type code  u64 sequences  u64 documents + 1
    i32 tokens of every sequence   i64 its first byte in .bin   i64 first sequence of every document, then the end

Every document of ours is one sequence, so the last array counts up from 0. Files of one data set are the same bytes as
those of ``IndexedDatasetBuilder``; a test compares them.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_prep.common.errors import DataError
from data_prep.common.one_by_one import OneByOne
from jobs.core import files

_HEAD = struct.Struct("<9sQBQQ")
_MAGIC = b"MMIDIDX\x00\x00"
_CODES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_SMALL = 65500  # Megatron's bound for two bytes a token
_BLOCK = 1 << 20


def dtype_for(vocabulary: int) -> np.dtype[Any]:
    """The type of a token for ids below ``vocabulary`` (the largest id + 1), by Megatron's rule: two bytes below
    65,500, else four."""
    return _CODES[8] if vocabulary < _SMALL else _CODES[4]


def paths(prefix: Path) -> tuple[Path, Path]:
    """``PREFIX.bin`` and ``PREFIX.idx``; dots in the prefix stay."""
    return Path(f"{prefix}.bin"), Path(f"{prefix}.idx")


class IndexedWriter:
    """Writes documents one after the other; ``close`` writes the index and has both files on disk.

    Holds four bytes a document in memory.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self._prefix = prefix
        self._dtype = dtype
        self._lengths = array("i")
        self._stream = open(paths(prefix)[0], "wb", buffering=_BLOCK)  # noqa: SIM115 (closed by close)

    def add(self, ids: np.ndarray[Any, Any]) -> None:
        """Append a document.

        Raises:
            DataError: an id that the type of a token cannot hold.
        """
        limits = np.iinfo(self._dtype)
        if len(ids) and not limits.min <= int(ids.min()) <= int(ids.max()) <= limits.max:
            raise DataError(
                f"document {len(self._lengths)} has the id {int(ids.max())}, which {self._dtype.name} cannot hold: "
                "choose the type from the tokenizer's largest id",
                paths(self._prefix)[0],
            )
        self._stream.write(ids.astype(self._dtype, copy=False).tobytes())
        self._lengths.append(len(ids))

    def close(self) -> None:
        """Finish .bin and write .idx; both are on disk when this returns, so that a mark written later is true."""
        _flush(self._stream)
        self._stream.close()
        _write_index(paths(self._prefix)[1], self._dtype, [np.frombuffer(self._lengths, np.int32)])


def _flush(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _write_index(path: Path, dtype: np.dtype[Any], parts: Sequence[np.ndarray[Any, Any]]) -> None:
    """Write .idx from the lengths of all documents, which lie in ``parts`` (of which each may be a mapped file)."""
    count = sum(map(len, parts))
    code = next(code for code, known in _CODES.items() if known == dtype)
    with open(path, "wb") as stream:
        stream.write(_HEAD.pack(_MAGIC, 1, code, count, count + 1))
        for part in parts:
            stream.write(np.ascontiguousarray(part, "<i4").tobytes())
        first = 0
        for part in parts:
            ends = np.cumsum(part, dtype=np.int64) * dtype.itemsize + first
            stream.write((ends - part.astype(np.int64) * dtype.itemsize).astype("<i8").tobytes())
            first = int(ends[-1]) if len(part) else first
        for start in range(0, count + 1, _BLOCK):
            stream.write(np.arange(start, min(start + _BLOCK, count + 1), dtype="<i8").tobytes())
        _flush(stream)
    files.fsync_directory(path.parent)


def join(parts: Sequence[tuple[Path, range | None]], target: Path, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Join data sets (prefixes, and which documents of each: None is all) in the given order into one; returns
    documents and tokens.

    The result is what one writer would have written: nothing shows where a part ended.
    """

    def lengths_of(part: tuple[Path, range | None]) -> np.ndarray[Any, Any]:
        chosen = slice(None) if part[1] is None else slice(part[1].start, part[1].stop)
        return Indexed(part[0]).lengths[chosen]

    lengths = OneByOne(parts, lengths_of)
    with open(paths(target)[0], "wb") as stream:
        for prefix, chosen in parts:
            part = Indexed(prefix)
            if part.dtype != dtype:
                raise DataError(f"has tokens of type {part.dtype}, not {dtype}", paths(prefix)[1])
            ends = np.concatenate(([0], np.cumsum(part.lengths, dtype=np.int64))) * dtype.itemsize
            first, end = (0, len(part)) if chosen is None else (chosen.start, chosen.stop)
            copy(paths(prefix)[0], int(ends[first]), int(ends[end] - ends[first]), stream)
        _flush(stream)
    _write_index(paths(target)[1], dtype, lengths)
    return sum(map(len, lengths)), sum(int(part.sum(dtype=np.int64)) for part in lengths)


def copy(path: Path, first: int, count: int, stream: IO[bytes]) -> None:
    """Append ``count`` bytes of a file, from ``first`` on, to ``stream``.

    Raises:
        DataError: the file has not so many.
    """
    with open(path, "rb") as source:
        source.seek(first)
        while count:
            block = source.read(min(count, 8 * _BLOCK))
            if not block:
                raise DataError(f"is cut off: {count} more bytes belong to it", path)
            stream.write(block)
            count -= len(block)


class Indexed:
    """A data set on disk, mapped into memory: the documents' ids by number.

    Raises:
        DataError: the two files are not a data set, or do not belong together.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        data, index = paths(prefix)
        try:
            size = data.stat().st_size
            if index.stat().st_size < _HEAD.size:
                raise DataError("is cut off: it has no header", index)
            mapped = np.memmap(index, np.uint8, mode="r")
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", error.filename) from error
        magic, version, code, count, documents = _HEAD.unpack(mapped[: _HEAD.size].tobytes())
        if magic != _MAGIC or version != 1 or code not in _CODES:
            raise DataError("is not an index of an indexed data set with tokens of two or four bytes", index)
        if len(mapped) < _HEAD.size + 12 * count + 8 * documents:
            raise DataError(f"is cut off: {len(mapped)} bytes for {count} sequences", index)
        self.dtype = _CODES[code]
        self.lengths = mapped[_HEAD.size : _HEAD.size + 4 * count].view("<i4")
        self._starts = mapped[_HEAD.size + 4 * count : _HEAD.size + 12 * count].view("<i8")
        wanted = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        if size != wanted:
            raise DataError(f"has {size} bytes, but its index says {wanted}", data)
        self._data = np.memmap(data, self.dtype, mode="r") if size else np.zeros(0, self.dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> np.ndarray[Any, Any]:
        first = int(self._starts[number]) // self.dtype.itemsize
        return np.asarray(self._data[first : first + int(self.lengths[number])])

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        return (self[number] for number in range(len(self)))


def is_prefix(path: Path) -> bool:
    """True where ``path`` names a data set: by its prefix, or by one of its two files."""
    return all(os.path.isfile(one) for one in paths(prefix_of(path)))


def prefix_of(path: Path) -> Path:
    """The prefix that ``path`` (a prefix, a .bin or a .idx) stands for."""
    return path.with_name(path.name[:-4]) if path.suffix in (".bin", ".idx") else path
