"""Rows of the user's own files, digested while they are read, refused with ``file:line`` where they are bad."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError
from jobs.core.spec import Source

_BOM = b"\xef\xbb\xbf"
_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "corpus": (("text",),),
    "instructions": (("prompt", "completion"), ("input", "output")),
    "preferences": (("prompt", "chosen", "rejected"),),
}


@dataclass(frozen=True)
class FileRow:
    """One row: its texts in the order of the fields of its kind. ``position``: line number."""

    path: str
    position: int
    texts: tuple[str, ...]


def rows(kind: str, sources: tuple[Source, ...], progress: Callable[[int, int], None]) -> Iterator[FileRow]:
    """All rows of ``sources``; of text files, all paragraphs. To be exhausted: the digest is known at the end.

    Raises:
        DataError: a bad line, an empty file, an ending that this kind does not read, other content than planned.
    """
    if not sources:
        raise DataError("no source files are given")
    total = sum(source.size for source in sources)
    done = 0
    for source in sorted(sources, key=lambda source: source.path):
        suffix = Path(source.path).suffix.lower()
        if suffix == ".jsonl":
            read = _read_json
        elif kind == "corpus" and suffix in (".txt", ".md"):
            read = _read_text
        else:
            known = ".jsonl, .txt or .md" if kind == "corpus" else ".jsonl"
            raise DataError(f"a file of {kind} must end in {known}", source.path)
        empty = True
        for row in read(kind, source, _after(done, total, progress)):
            empty = False
            yield row
        if empty:
            raise DataError("has no rows", source.path)
        done += source.size
    progress(total, total)


def _after(done: int, total: int, progress: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda count: progress(done + count, total)


def _lines(source: Source, progress: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """(number, text) of every line; at the end, compare size and digest of what went through with the spec."""
    hasher = hashlib.sha256()
    size = 0
    try:
        with open(source.path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                hasher.update(line)
                size += len(line)
                if number % 1000 == 0:
                    progress(size)
                if number == 1:
                    line = line.removeprefix(_BOM)
                try:
                    yield number, line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"is not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}", source.path, number
                    ) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source.path) from error
    if size == 0:
        raise DataError("is empty", source.path)
    if hasher.hexdigest() != source.sha256:
        raise DataError(
            f"changed since this run was planned: sha256 {hasher.hexdigest()} ({size} bytes), "
            f"planned with {source.sha256} ({source.size} bytes); plan and submit again",
            source.path,
        )


def _read_text(kind: str, source: Source, progress: Callable[[int], None]) -> Iterator[FileRow]:
    """Paragraphs (separated by empty lines) of a text file."""
    lines: list[str] = []
    start = 1
    for number, line in _lines(source, progress):
        if line.strip():
            if not lines:
                start = number
            lines.append(line.rstrip())
        elif lines:
            yield FileRow(source.path, start, ("\n".join(lines),))
            lines = []
    if lines:
        yield FileRow(source.path, start, ("\n".join(lines),))


def _read_json(kind: str, source: Source, progress: Callable[[int], None]) -> Iterator[FileRow]:
    for number, line in _lines(source, progress):
        if not line.strip():
            raise DataError("an empty line: every line must be a JSON object", source.path, number)
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"is not JSON: {error}", source.path, number) from error
        except RecursionError as error:
            raise DataError("is not a row: JSON nested too deeply", source.path, number) from error
        yield FileRow(source.path, number, _texts(kind, value, source.path, number))


def _texts(kind: str, value: Any, path: str, line: int) -> tuple[str, ...]:
    """The texts of a row in the order of its fields."""
    forms = _FIELDS[kind]
    wanted = " or ".join("{" + ", ".join(f'"{name}"' for name in names) + "}" for names in forms)
    if not isinstance(value, dict):
        raise DataError(f"is a JSON {type(value).__name__}, not an object {wanted}", path, line)
    names = max(forms, key=lambda names: len(value.keys() & set(names)))
    texts: list[str] = []
    for name in names:
        if name not in value:
            raise DataError(f'field "{name}" is missing; a row of {kind} is {wanted}', path, line)
        entry = value[name]
        if not isinstance(entry, str):
            what = "null" if entry is None else f"{type(entry).__name__}, not a text"
            raise DataError(f'field "{name}" is {what}', path, line)
        if not entry.strip():
            raise DataError(f'field "{name}" is empty', path, line)
        try:
            entry.encode("utf-8")
        except UnicodeEncodeError as error:
            where = f"at character {error.start + 1}"
            raise DataError(f'field "{name}" has half a surrogate pair {where}', path, line) from error
        texts.append(entry)
    return tuple(texts)
