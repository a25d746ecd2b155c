"""Bytes of plain and packed files, and their lines, with bounded memory and a place for everything that is wrong."""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

from data_prep.common.errors import SettingsError, of_extra

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_PACKED_ERRORS: tuple[type[BaseException], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
_MODULES = {"gzip": "gzip", "xz": "lzma", "bzip2": "bz2"}  # the last two may be missing in a Python built by hand
PACKINGS = (
    (b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"),
)  # fmt: skip
"""First bytes of a packed file, and the name of its packing: the name of the file may say something else."""


class Broken(Exception):
    """A file ends too early, or holds bytes that mean nothing; ``str()`` says which.

    ``line``: the first that could not be read (0: what is read is not lines); ``reason``: for the count.
    """

    def __init__(self, text: str, line: int = 0, reason: str = "broken_archive") -> None:
        super().__init__(text)
        self.line = line
        self.reason = reason

    def place(self, path: str) -> str:
        return f"{path}:{self.line}" if self.line else path


class _InParts(io.RawIOBase):
    """The bytes of ``_part``, which returns the next ones, or None at the end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = b""

    def _part(self) -> bytes | None:
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            part = self._part()
            if part is None:
                return 0
            self._left = part
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Zstd(_InParts):
    """Reads zstd frames; unlike the library's own reader it tells a file that was cut off from one that ended."""

    def __init__(self, path: str) -> None:
        library = of_extra("zstandard", "a .zst file")
        super().__init__(open(path, "rb"))  # noqa: SIM115 (closed by close)
        self._error = library.ZstdError
        self._new: Any = library.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame = self._new()
        self._fresh = True

    def _part(self) -> bytes | None:
        data = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame, self._fresh = self._new(), True
        data = data or self._stream.read(_CHUNK >> 3)
        if not data:
            if not self._fresh:
                raise EOFError("the file ends within a frame")
            return None
        self._fresh = False
        try:
            return bytes(self._frame.decompress(data))
        except self._error as error:
            raise EOFError(str(error)) from error


class _Recoded(_InParts):
    """The bytes of text in another encoding as UTF-8. What comes before a wrong byte is given first."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        super().__init__(stream)
        self._name = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._line = 1
        self._end = False
        self._error: Broken | None = None

    def _part(self) -> bytes | None:
        if self._error is not None:
            raise self._error
        if self._end:
            return None
        data = self._stream.read(_CHUNK >> 3)
        self._end = not data
        held, state = self._decoder.getstate()
        try:
            text = self._decoder.decode(data, final=self._end)
        except UnicodeDecodeError as error:
            whole = held + data
            self._decoder.setstate((b"", state))
            text = self._decoder.decode(whole[: error.start])
            what = f"byte 0x{whole[error.start]:02x}" if error.start < len(whole) else "it ends within a character"
            self._error = Broken(
                f"is not {self._name}: {what}", self._line + text.count("\n"), f"not_{self._name.replace('-', '')}"
            )
        self._line += text.count("\n")
        return text.encode("utf-8", "surrogatepass")


def packing(head: bytes) -> str:
    """The packing of a file by its first bytes; empty where it has none."""
    return next((name for mark, name in PACKINGS if head.startswith(mark)), "")


def open_bytes(path: str, encoding: str = "utf-8") -> IO[bytes]:
    """The content of a file, unpacked, its text as UTF-8.

    Raises:
        OSError: it cannot be opened.
        SettingsError: the library for its packing is missing.
    """
    plain = open(path, "rb", buffering=_CHUNK)  # noqa: SIM115 (its reader closes it)
    kind = packing(plain.read(16))
    plain.seek(0)
    found: IO[bytes] = plain
    if kind:
        plain.close()
        if kind == "zstd":
            found = io.BufferedReader(_Zstd(path), _CHUNK)
        else:
            try:
                found = importlib.import_module(_MODULES[kind]).open(path, "rb")
            except ImportError as error:
                raise SettingsError(
                    f"{path}: this Python has no module for {kind} ({error}): unpack the file"
                ) from error
    return found if encoding == "utf-8" else io.BufferedReader(_Recoded(found, encoding), _CHUNK)


def broken(error: BaseException, line: int = 0) -> Broken | None:
    """What a failed read of packed or recoded bytes means; None: it is a failure of the file system."""
    if isinstance(error, Broken):
        return error
    if (
        isinstance(error, _PACKED_ERRORS)
        or type(error).__name__ == "LZMAError"
        or (isinstance(error, OSError) and error.errno is None)  # so says bz2
    ):
        return Broken(f"its packed data is cut off or damaged: {str(error) or type(error).__name__}", line)
    return None


def read_whole(path: str, limit: int, encoding: str = "utf-8") -> bytes | None:
    """All of a file; None if it is longer than ``limit`` bytes.

    Raises:
        Broken: it is packed, and cut off or damaged.
    """
    with open_bytes(path, encoding) as stream:
        try:
            content = stream.read(limit + 1)
        except Exception as error:
            if (found := broken(error)) is None:
                raise
            raise found from error
    return None if len(content) > limit else content.removeprefix(_BOM)


def lines(
    path: str, limit: int, encoding: str = "utf-8", *, start: int = 0, end: int | None = None, first: int = 0
) -> Iterator[tuple[int, bytes | None]]:
    """(number, content) of the lines of a file, without line ends; content None: longer than ``limit`` bytes.

    Of a plain file in UTF-8 only the lines that begin in the bytes ``start`` to ``end``; ``first``: how many lines end
    before ``start``.

    Raises:
        Broken: the file is packed, and cut off or damaged; lines before that have been given.
    """
    number, at = first, 0
    with open_bytes(path, encoding) as stream:
        if start:
            # A line belongs to the piece that it begins in: what is left of one begun before is passed over.
            stream.seek(start - 1)
            at = start - 1 + _pass_line(stream)
            number += at > start
        while end is None or at < end:
            try:
                line = stream.readline(limit + 2)
                at += len(line)
                too_long = len(line) > limit and not line.endswith(b"\n")
                if too_long:
                    at += _pass_line(stream)
            except Exception as error:
                if (found := broken(error, number + 1)) is None:
                    raise
                raise found from error
            if not line:
                return
            number += 1
            if too_long:
                yield number, None
            else:
                yield number, (line.removeprefix(_BOM) if number == 1 else line).rstrip(b"\r\n")


def _pass_line(stream: IO[bytes]) -> int:
    """Read on to the end of the line in bounded steps; returns the bytes passed."""
    passed = 0
    while True:
        part = stream.readline(_CHUNK)
        passed += len(part)
        if not part or part.endswith(b"\n"):
            return passed
