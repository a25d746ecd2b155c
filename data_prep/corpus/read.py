"""Documents of a piece, one at a time, whatever its format; what is no document comes as a ``Flaw`` with its place."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.card.account import Flaw
from data_prep.common.errors import SettingsError
from data_prep.corpus import html, streams
from data_prep.corpus.inputs import ROWS, TEXT, Piece, name_parts
from data_prep.corpus.recipe import Recipe

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A text and where it stands: ``line`` is its first line (of Parquet: its row, from 1); ``id`` as the file gives
    it."""

    path: str
    line: int
    text: str
    id: str | None = None

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


def documents(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    """What ``piece`` holds, in its order. Nothing is dropped here without a ``Flaw``."""
    form = name_parts(piece.path)[0]
    if form not in TEXT + ROWS:
        known = ", ".join((*TEXT, *ROWS))
        yield Flaw("unknown_format", piece.path, f"has an ending that is not read; known: {known}, also as .gz or .zst")
        return
    if form == ".parquet":
        found = _parquet(piece, recipe)
    elif form in ROWS:
        found = _json_lines(piece, recipe)
    elif form in (".html", ".htm"):
        found = _html(piece, recipe)
    elif recipe.document_chars is None:
        found = _whole(piece, recipe)
    else:
        found = _paragraphs(piece, recipe, recipe.document_chars)
    nothing = True
    try:
        for one in found:
            nothing = False
            yield one
    except streams.Broken as error:
        nothing = False
        yield Flaw("broken_archive", error.place(piece.path), str(error))
    except OSError as error:
        nothing = False
        yield Flaw("unreadable", piece.path, f"cannot be read: {error.strerror or error}")
    if nothing and piece.start == 0:
        yield Flaw("empty_file", piece.path, "has no rows")


def _json_lines(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    for number, line in streams.lines(piece, recipe.max_document_bytes):
        place = f"{piece.path}:{number}"
        if line is None:
            yield _too_long(place, "this line", recipe)
            continue
        text = decode(line, place)
        if isinstance(text, Flaw):
            yield text
            continue
        if not text.strip():
            yield Flaw("empty_line", place, "an empty line: every line must be a JSON object")
            continue
        try:
            value = json.loads(text)
        except ValueError as error:
            yield Flaw("not_json", place, f"is not JSON: {error}")
            continue
        except RecursionError:
            yield Flaw("not_json", place, "is not a row: JSON nested too deeply")
            continue
        if not isinstance(value, dict):
            kind = type(value).__name__
            yield Flaw("not_an_object", place, f'is a JSON {kind}, not an object {{"{recipe.text_field}"}}')
            continue
        yield _row(piece.path, number, value, recipe)


def _row(path: str, number: int, value: dict[str, Any], recipe: Recipe) -> CorpusDocument | Flaw:
    place, name = f"{path}:{number}", recipe.text_field
    if name not in value:
        known = ", ".join(f'"{key}"' for key in list(value)[:8])
        return Flaw("missing_field", place, f'field "{name}" is missing; it has {known or "no fields"}')
    text = value[name]
    if text is None:
        return Flaw("null_field", place, f'field "{name}" is null')
    if not isinstance(text, str):
        return Flaw("not_text", place, f'field "{name}" is {type(text).__name__}, not a text')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Flaw("half_surrogate", place, f'field "{name}" has half a surrogate pair at character {error.start + 1}')
    if not text.strip():
        return Flaw("empty_text", place, f'field "{name}" is empty')
    own = value.get("id")
    return CorpusDocument(path, number, text, None if own is None else str(own))


def _html(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    content = streams.read_whole(piece.path, recipe.max_document_bytes)
    if content is None:
        yield _too_long(piece.path, "the page", recipe)
        return
    declared = html.charset(content)
    try:
        page = content.decode(declared)
    except (LookupError, UnicodeDecodeError):
        decoded = decode(content, piece.path, what="the page")
        if isinstance(decoded, Flaw):
            yield decoded
            return
        page = decoded
    text = html.to_text(page)
    if not text:
        yield Flaw("empty_text", f"{piece.path}:1", "the page has no text")
    else:
        yield CorpusDocument(piece.path, 1, text)


def _whole(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    content = streams.read_whole(piece.path, recipe.max_document_bytes)
    if content is None:
        yield _too_long(piece.path, "the file", recipe, "; set document_chars to cut it at empty lines")
        return
    text = decode(content, piece.path, what="the file")
    if isinstance(text, Flaw):
        yield text
    elif text.strip():
        yield CorpusDocument(piece.path, 1, text)


def _paragraphs(piece: Piece, recipe: Recipe, characters: int) -> Iterator[CorpusDocument | Flaw]:
    """Documents of at least ``characters``, cut at empty lines; what is left at the end is one, too."""
    held: list[str] = []
    size = first = 0
    for number, line in streams.lines(piece, recipe.max_document_bytes):
        place = f"{piece.path}:{number}"
        text = _too_long(place, "this line", recipe) if line is None else decode(line or b"", place)
        if isinstance(text, Flaw):
            yield text
            continue
        if text.strip():
            first = first or number
            held.append(text)
            size += len(text)
        elif held:
            if size >= characters:
                yield CorpusDocument(piece.path, first, "\n".join(held).rstrip("\n"))
                held, size, first = [], 0, 0
            elif held[-1]:
                held.append("")
    if held:
        yield CorpusDocument(piece.path, first, "\n".join(held).rstrip("\n"))


def _parquet(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SettingsError(f'.parquet files need the extra "data": pip install "overnight[data]" ({error})') from error
    name = recipe.text_field
    number = 0
    try:
        table = parquet.ParquetFile(piece.path)
        columns = [column for column in (name, "id") if column in table.schema_arrow.names]
        if name not in columns:
            known = ", ".join(f'"{column}"' for column in table.schema_arrow.names[:8])
            yield Flaw("missing_field", piece.path, f'column "{name}" is missing; it has {known}')
            return
        for batch in table.iter_batches(batch_size=256, columns=columns):
            for value in batch.to_pylist():
                number += 1
                row = _row(piece.path, number, value, recipe)
                if isinstance(row, CorpusDocument) and len(row.text) > recipe.max_document_bytes:
                    row = _too_long(row.place, "this row", recipe)
                yield row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # OSError: damaged pages
        yield broken_parquet(piece.path, number, error)


def broken_parquet(path: str, read: int, error: Exception) -> Flaw:
    """The flaw of a Parquet file of which ``read`` rows could be read."""
    words = (str(error).splitlines() or [type(error).__name__])[0]
    if not read:
        return Flaw("broken_archive", path, f"is not a readable Parquet file: {words}")
    return Flaw("broken_archive", f"{path}:{read + 1}", f"from this row on the Parquet file cannot be read: {words}")


def decode(content: bytes, place: str, what: str = "") -> str | Flaw:
    """``content`` as UTF-8, or the flaw with the line (of a whole file) and column of the first wrong byte."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        if what:
            line = before.count(b"\n") + 1
            place = f"{place}:{line}"
        hint = " (it looks like UTF-16)" if content.startswith(_UTF16) else ""
        return Flaw("not_utf8", place, f"is not UTF-8: byte 0x{content[error.start]:02x} at column {column}{hint}")


def _too_long(place: str, what: str, recipe: Recipe, hint: str = "") -> Flaw:
    return Flaw("too_long", place, f"{what} has more than {recipe.max_document_bytes} bytes (max_document_bytes){hint}")
