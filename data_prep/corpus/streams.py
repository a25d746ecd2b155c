"""Bytes of plain and packed files, and their lines, with bounded memory and a place for everything that is wrong."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

from data_prep.common.errors import SettingsError
from data_prep.corpus.inputs import Piece, name_parts

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_PACKED_ERRORS: tuple[type[BaseException], ...] = (EOFError, gzip.BadGzipFile, zlib.error)


class Broken(Exception):
    """A packed file ends too early or holds nonsense; ``str()`` says which. ``line``: the first that could not be read
    (0: what is read is not lines)."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line

    def place(self, path: str) -> str:
        return f"{path}:{self.line}" if self.line else path


class _Zstd(io.RawIOBase):
    """Reads zstd frames; unlike the library's own reader it tells a file that was cut off from one that ended."""

    def __init__(self, path: str) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise SettingsError(f'.zst files need the extra "data": pip install "overnight[data]" ({error})') from error
        self._error = zstandard.ZstdError
        self._new: Any = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._stream = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._frame = self._new()
        self._fresh = True
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._fresh = self._new(), True
            data = data or self._stream.read(_CHUNK >> 3)
            if not data:
                if not self._fresh:
                    raise EOFError("the file ends within a frame")
                return 0
            self._fresh = False
            try:
                self._left = self._frame.decompress(data)
            except self._error as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: str) -> IO[bytes]:
    """The content of a file, unpacked by the ending of its name.

    Raises:
        OSError: it cannot be opened.
        SettingsError: the library for its packing is missing.
    """
    packing = name_parts(path)[1]
    if packing == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if packing == ".zst":
        return io.BufferedReader(_Zstd(path), _CHUNK)
    return open(path, "rb", buffering=_CHUNK)


def read_whole(path: str, limit: int) -> bytes | None:
    """All of a file; None if it is longer than ``limit`` bytes.

    Raises:
        Broken: it is packed, and cut off or damaged.
    """
    with open_bytes(path) as stream:
        try:
            content = stream.read(limit + 1)
        except _PACKED_ERRORS as error:
            raise Broken(_words(error)) from error
    return None if len(content) > limit else content.removeprefix(_BOM)


def lines(piece: Piece, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(number, content) of the lines of a piece, without line ends; content None: longer than ``limit`` bytes.

    Raises:
        Broken: the file is packed, and cut off or damaged; lines before that have been given.
    """
    plain = not name_parts(piece.path)[1]
    with open_bytes(piece.path) as stream:
        number = piece.line
        at = 0
        if plain and piece.start:
            # A line belongs to the piece that it begins in: what is left of one begun before is passed over.
            stream.seek(piece.start - 1)
            at = piece.start - 1 + _pass_line(stream)
            number += at > piece.start
        while not plain or at < piece.end:
            try:
                line = stream.readline(limit + 2)
                at += len(line)
                if len(line) > limit and not line.endswith(b"\n"):
                    at += _pass_line(stream)
                    line = b""
                    number += 1
                    yield number, None
                    continue
            except _PACKED_ERRORS as error:
                raise Broken(_words(error), number + 1) from error
            if not line:
                return
            number += 1
            yield number, (line.removeprefix(_BOM) if number == 1 else line).rstrip(b"\r\n")


def _pass_line(stream: IO[bytes]) -> int:
    """Read on to the end of the line in bounded steps; returns the bytes passed."""
    passed = 0
    while True:
        part = stream.readline(_CHUNK)
        passed += len(part)
        if not part or part.endswith(b"\n"):
            return passed


def _words(error: BaseException) -> str:
    return f"its packed data is cut off or damaged: {str(error) or type(error).__name__}"
