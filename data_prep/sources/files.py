"""Rows of the user's own files, digested before they are read, refused with ``file:line`` where they are bad."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError, Flaw, SourceMissing, leaving_out
from data_prep.sources import formats, json_rows, reader, streams
from jobs.core.spec import Source

_CHUNK = 1 << 20
_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "corpus": (("text",),),
    "instructions": (("prompt", "completion"), ("input", "output")),
    "preferences": (("prompt", "chosen", "rejected"),),
}

CARRIED = (
    "id", "source", "dataset", "category", "language", "lang", "license", "url", "prompt_id", "conversation_id",
    "model",
)  # fmt: skip
"""Fields that say something about a row, and are no part of what is learned."""


@dataclass(frozen=True)
class FileRow:
    """One row: its texts in the order of the fields of its kind. ``position``: line or number of the row; ``alone``: it
    is a row of a file, not a paragraph of a text; ``ignored``: fields of it that say nothing about what is learned."""

    path: str
    position: int
    texts: tuple[str, ...]
    alone: bool = False
    ignored: tuple[str, ...] = ()


def find_files(path: Path) -> list[Path]:
    """The file ``path``, or all regular files below it, hidden ones left out, sorted.

    Raises:
        DataError: nothing there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError("no such file or directory", path)
    found = sorted(
        entry
        for entry in path.rglob("*")
        if entry.is_file() and not any(part.startswith(".") for part in entry.relative_to(path).parts)
    )
    if not found:
        raise DataError("there are no files below it", path)
    return found


def changed(source: Source, sha256: str, size: int) -> DataError:
    """The error for a file that is not the one that was planned with."""
    return DataError(
        f"changed since this run was planned: sha256 {sha256} ({size} bytes), "
        f"planned with {source.sha256} ({source.size} bytes); plan and submit again",
        source.path,
    )


def rows(kind: str, sources: tuple[Source, ...], progress: Callable[[int, int], None]) -> Iterator[FileRow]:
    """All rows of ``sources``; of text files, all paragraphs.

    Raises:
        DataError: a bad row, an empty file, an ending that this kind does not read, other content than planned.
    """
    if not sources:
        raise DataError("no source files are given")
    total = sum(source.size for source in sources)
    done = 0
    for source in sorted(sources, key=lambda source: source.path):
        try:
            before = check_digest(source)
            known = formats.look(source.path)
            if known.form == "text" and kind == "corpus":
                yield from _paragraphs(source.path, known.encoding)
            else:
                yield from rows_of(kind, source.path, known)
            if os.stat(source.path).st_mtime_ns != before:
                raise DataError("changed while it was read; start again", source.path)
        except FileNotFoundError as error:
            raise SourceMissing("is not there any more", source.path) from error
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", source.path) from error
        done += source.size
        progress(done, total)


def check_digest(source: Source) -> int:
    """Digest a file before it is read; returns when it was last changed. A source without a digest may be any.

    Raises:
        DataError: it is empty, or not the one that was planned with.
    """
    hasher = hashlib.sha256()
    size = 0
    with open(source.path, "rb") as stream:
        mtime = os.fstat(stream.fileno()).st_mtime_ns
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    if size == 0:
        raise DataError("is empty", source.path)
    if source.sha256 and hasher.hexdigest() != source.sha256:
        raise changed(source, hasher.hexdigest(), size)
    return mtime


def _paragraphs(path: str, encoding: str) -> Iterator[FileRow]:
    """Paragraphs (separated by empty lines) of a text file."""
    held: list[str] = []
    start = 1
    nothing = True
    try:
        for number, line in streams.lines(path, reader.ROW_BYTES, encoding):
            if line is None:
                raise DataError(f"this line has more than {reader.ROW_BYTES} bytes", path, number)
            text = json_rows.decode(line, f"{path}:{number}")
            if isinstance(text, Flaw):
                raise DataError(f"{text.place}: {text.text}")
            if text.strip():
                if not held:
                    start = number
                held.append(text.rstrip())
            elif held:
                nothing = False
                yield FileRow(path, start, ("\n".join(held),))
                held = []
    except streams.Broken as error:
        raise DataError(f"{error.place(path)}: {error}") from error
    if held:
        yield FileRow(path, start, ("\n".join(held),))
    elif nothing:
        raise DataError("has no rows", path)


def rows_of(kind: str, path: str, known: formats.Format) -> Iterator[FileRow]:
    """The rows of one file without ``prepare``. Raises DataError: one is not of this kind; with file and line."""
    if not known.is_rows:
        text = ", .txt or .md" if kind == "corpus" else ""
        raise DataError(known.refused or f"a file of {kind} must end in {', '.join(formats.ROWS)}{text}", path)
    for found in reader.rows(path):
        if isinstance(found, Flaw):
            raise DataError(f"{found.place}: {found.text}")
        number, value = found
        texts, ignored = _texts(kind, value, path, number)
        yield FileRow(path, number, texts, True, ignored)


def _texts(kind: str, value: dict[str, Any], path: str, line: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of a row in the order of its fields, and the names of the fields beside them."""
    forms = _FIELDS[kind]
    wanted = " or ".join("{" + ", ".join(f'"{name}"' for name in names) + "}" for names in forms)
    names = max(forms, key=lambda names: len(value.keys() & set(names)))
    others = tuple(name for name, entry in value.items() if name not in names and entry not in (None, "", [], {}))
    texts: list[str] = []
    for name in names:
        if name not in value:
            hint = "" if kind == "corpus" else ' (other forms, such as messages, are read with "prepare: {}")'
            raise DataError(f'field "{name}" is missing; a row of {kind} is {wanted}{hint}', path, line)
        entry = value[name]
        if not isinstance(entry, str):
            what = "null" if entry is None else f"{type(entry).__name__}, not a text"
            hint = ' (lists of messages are read with "prepare: {}")' if isinstance(entry, list) else ""
            raise DataError(f'field "{name}" is {what}{hint}', path, line)
        if not entry.strip():
            raise DataError(f'field "{name}" is empty', path, line)
        texts.append(entry)
    if kind != "corpus" and (lost := [name for name in others if name not in CARRIED]):
        raise DataError(
            f'field "{lost[0]}" is not used; a row of {kind} without prepare is {wanted}: write "prepare: {{}}" for '
            f"this stage, which reads other forms, or leaves fields out (prepare: {{{leaving_out(lost[0])}}})",
            path,
            line,
        )
    return tuple(texts), others
