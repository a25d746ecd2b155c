"""Rows of JSON lines, of a list of objects, and of objects one after the other; a file of any size is never held whole.

An object that names a key twice is a flaw: which of the two values is meant, no reader can know.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from data_prep.common.errors import Flaw
from data_prep.sources import streams

HINT = "if the file is in another encoding, set encoding, such as latin-1 or utf-16"
Found = Iterator[tuple[int, dict[str, Any]] | Flaw]
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_READ = 1 << 16
_NEAR = 16  # characters: no word, number or escape that is cut off by the end of the buffer is longer
_LISTS = frozenset(("data", "rows", "examples", "instances", "items", "samples", "dataset", "train"))


class _Decoder:
    """A JSON decoder that remembers the first key that stood twice in an object."""

    def __init__(self) -> None:
        self._repeated: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and self._repeated is None:
            names = [name for name, _ in pairs]
            self._repeated = next(name for at, name in enumerate(names) if name in names[:at])
        return found

    def at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at ``start``, and where it ends."""
        self._repeated = None
        return self._decoder.raw_decode(text, start)

    def line(self, text: str) -> Any:
        """The only value in ``text``."""
        self._repeated = None
        return self._decoder.decode(text)

    def checked(self, value: Any, source: str, place: str) -> Flaw | None:
        """What is wrong with the value just read from ``source``."""
        if self._repeated is not None:
            return Flaw("repeated_key", place, f'has the key "{self._repeated}" twice')
        if _HALF.search(source):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return Flaw("half_surrogate", place, _half_pair(value))
        if not isinstance(value, dict):
            return Flaw("not_an_object", place, f"is a JSON {type(value).__name__}, not an object")
        return None


def _half_pair(value: Any) -> str:
    for name, text in value.items() if isinstance(value, dict) else ():
        if isinstance(text, str) and (found := re.search("[\ud800-\udfff]", text)):
            return f'field "{name}" has half a surrogate pair at character {found.start() + 1}'
    return "has half a surrogate pair in a text"


def decode(content: bytes, place: str, what: str = "") -> str | Flaw:
    """``content`` as UTF-8, or the flaw with the line (of a whole file) and column of the first wrong byte."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        if what:
            place = f"{place}:{before.count(bytes([10])) + 1}"
        return Flaw("not_utf8", place, f"is not UTF-8: byte 0x{content[error.start]:02x} at column {column}; {HINT}")


def lines(path: str, found: Iterator[tuple[int, bytes | None]], limit: int) -> Found:
    """(line, row) of every line that is not blank."""
    decoder = _Decoder()
    for number, line in found:
        place = f"{path}:{number}"
        if line is None:
            yield Flaw("too_long", place, f"this line has more than {limit} bytes (max_document_bytes)")
            continue
        text = decode(line, place)
        if isinstance(text, Flaw):
            yield text
            continue
        if not text.strip():
            continue
        try:
            value = decoder.line(text)
        except RecursionError:
            yield Flaw("not_json", place, "is not a row: JSON nested too deeply")
        except ValueError as error:
            comma = text.rstrip().endswith(",") and " (a comma behind the object: lines have none between them)"
            yield Flaw("not_json", place, f"is not JSON: {error}{comma or ''}")
        else:
            yield decoder.checked(value, text, place) or (number, value)


def values(path: str, limit: int, encoding: str) -> Found:
    """(line, row) of every object of a list, or of objects one after the other.

    Raises:
        Broken: the file is packed, and cut off or damaged.
    """
    with streams.open_bytes(path, encoding) as raw:
        # Wrong bytes come as half surrogates, so that they are told with the line of their row.
        yield from _Values(path, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline=""), limit).rows()


class _Values:
    """A window over the text, moved on row by row and made larger while a row does not end in it."""

    def __init__(self, path: str, stream: io.TextIOBase, limit: int) -> None:
        self._path = path
        self._stream = stream
        self._limit = limit
        self._text = ""
        self._at = 0
        self._line = 1
        self._end = False

    def rows(self) -> Found:
        decoder = _Decoder()
        listed = self._next() == "["
        start = self._line
        if listed:
            self._move(self._at + 1)
        count = 0
        while (letter := self._next()) and not (listed and letter == "]"):
            if listed and count:
                if letter != ",":
                    yield self._flaw(self._line, "is not JSON: a comma between two rows is missing")
                    return
                self._move(self._at + 1)
                self._next()
            line = self._line
            value, end = self._value(decoder)
            if isinstance(value, Flaw):
                yield value
                return
            count += 1
            source = self._text[self._at : end]
            self._move(end)
            if _NOT_UTF8.search(source):
                yield Flaw("not_utf8", f"{self._path}:{line}", f"this row is not UTF-8; {HINT}")
            elif listed and count == 1 and not isinstance(value, dict):
                yield Flaw("not_an_object", f"{self._path}:{start}", "is a JSON list, not an object or a list of these")
            elif not listed and count == 1 and (name := _list_in(value)) is not None and not self._next():
                said = f'is one object with a list in "{name}", not rows: write that list alone into the file'
                yield Flaw("one_object", f"{self._path}:{line}", said)
            else:
                yield decoder.checked(value, source, f"{self._path}:{line}") or (line, value)
        if listed:
            yield from self._after_list(letter)

    def _after_list(self, letter: str) -> Iterator[Flaw]:
        if not letter:
            yield self._flaw(self._line, "is not JSON: the list has no end (the file is cut off?)")
            return
        self._move(self._at + 1)
        if self._next():
            yield self._flaw(self._line, "is not JSON: there is something behind the end of the list")

    def _flaw(self, line: int, text: str) -> Flaw:
        return Flaw("not_json", f"{self._path}:{line}", text)

    def _move(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> None:
        """Read on; the window grows with what is in it, so that a long row is not decoded too often."""
        left = len(self._text) - self._at
        try:
            part = self._stream.read(max(_READ, left))
        except Exception as error:
            if (found := streams.broken(error, self._line)) is None:
                raise
            raise found from error
        self._end = not part
        self._text, self._at = self._text[self._at :] + part, 0

    def _next(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._move(found.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if self._end:
                return ""
            self._more()

    def _value(self, decoder: _Decoder) -> tuple[Any, int]:
        """The value that begins here and its end, or a flaw."""
        while True:
            problem = ""
            line = self._line
            try:
                value, end = decoder.at(self._text, self._at)
                if end < len(self._text) or self._end or isinstance(value, dict | list | str):
                    return value, end
            except RecursionError:
                return self._flaw(line, "is not a row: JSON nested too deeply"), 0
            except json.JSONDecodeError as error:
                problem = f"is not JSON: {error.msg}"
                open_text = error.msg.startswith("Unterminated string")
                line = self._line + self._text.count("\n", self._at, error.pos)
                if self._end or (error.pos < len(self._text) - _NEAR and not open_text):
                    return self._flaw(line, problem), 0
            if len(self._text) - self._at > self._limit:
                said = f"this row has more than {self._limit} characters (max_document_bytes)"
                return Flaw("too_long", f"{self._path}:{self._line}", said), 0
            self._more()


def _list_in(value: Any) -> str | None:
    """The field of a single object that holds the rows, as some tools write them."""
    for name, entry in value.items() if isinstance(value, dict) else ():
        if name in _LISTS and isinstance(entry, list) and entry and isinstance(entry[0], dict):
            return str(name)
    return None
