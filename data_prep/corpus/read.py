"""Documents of a piece, one at a time, whatever its format; what is no document comes as a ``Flaw`` with its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.common.errors import Flaw
from data_prep.corpus import html
from data_prep.corpus.inputs import Piece
from data_prep.corpus.recipe import Recipe
from data_prep.sources import formats, reader, streams
from data_prep.sources.json_rows import decode


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A text and where it stands: ``line`` is its first line (of Parquet and Arrow: its row, from 1); ``id`` as the
    file gives it; ``is_part``: the file is cut into documents."""

    path: str
    line: int
    text: str
    id: str | None = None
    is_part: bool = False

    def split_by_file(self, group: str | None) -> bool:
        """True where all documents of its file are in one split (setting ``split.group``)."""
        return self.is_part if group is None else group == "file"

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


def documents(piece: Piece, recipe: Recipe) -> Iterator[CorpusDocument | Flaw]:
    """What ``piece`` holds, in its order. Nothing is dropped here without a ``Flaw``."""
    encoding = recipe.encoding_of(piece.group)
    nothing = piece.start == 0
    try:
        known = formats.look(piece.path, encoding)
        if known.is_rows:
            yield from _rows(piece, recipe, encoding)
            return
        for found in _texts(piece, recipe, known):
            nothing = False
            yield found
    except streams.Broken as error:
        nothing = False
        yield Flaw(error.reason, error.place(piece.path), str(error))
    except OSError as error:
        nothing = False
        yield Flaw("unreadable", piece.path, f"cannot be read: {error.strerror or error}")
    if nothing:
        yield Flaw("empty_file", piece.path, "has no rows")


def _rows(piece: Piece, recipe: Recipe, encoding: str | None) -> Iterator[CorpusDocument | Flaw]:
    columns = (recipe.text_field, "id")
    found = reader.rows(
        piece.path,
        encoding=encoding,
        limit=recipe.max_document_bytes,
        columns=columns,
        start=piece.start,
        end=piece.end,
        first=piece.line,
    )
    for one in found:
        row = one if isinstance(one, Flaw) else _row(piece.path, *one, recipe)
        if isinstance(row, CorpusDocument) and len(row.text) > recipe.max_document_bytes:
            row = _too_long(row.place, "this row", recipe)
        yield row


def _texts(piece: Piece, recipe: Recipe, known: formats.Format) -> Iterator[CorpusDocument | Flaw]:
    if not known.form:
        return iter([Flaw("unknown_format", piece.path, known.refused)])
    if known.form == "html":
        return _html(piece, recipe, known)
    if recipe.document_chars is None:
        return _whole(piece, recipe, known)
    return _paragraphs(piece, recipe, known, recipe.document_chars)


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
    if not text.strip():
        return Flaw("empty_text", place, f'field "{name}" is empty')
    own = value.get("id")
    return CorpusDocument(path, number, text, None if own is None else str(own))


def _html(piece: Piece, recipe: Recipe, known: formats.Format) -> Iterator[CorpusDocument | Flaw]:
    marked = known.encoding.startswith(("utf-16", "utf-32"))  # what a page of these declares cannot be read as bytes
    content = streams.read_whole(piece.path, recipe.max_document_bytes, known.encoding if marked else "utf-8")
    if content is None:
        yield _too_long(piece.path, "the page", recipe)
        return
    try:
        page = content.decode("utf-8" if marked else html.charset(content) or known.encoding)
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


def _whole(piece: Piece, recipe: Recipe, known: formats.Format) -> Iterator[CorpusDocument | Flaw]:
    content = streams.read_whole(piece.path, recipe.max_document_bytes, known.encoding)
    if content is None:
        yield _too_long(piece.path, "the file", recipe, "; set document_chars to cut it at empty lines")
        return
    text = decode(content, piece.path, what="the file")
    if isinstance(text, Flaw):
        yield text
    elif text.strip():
        yield CorpusDocument(piece.path, 1, text)


def _paragraphs(
    piece: Piece, recipe: Recipe, known: formats.Format, characters: int
) -> Iterator[CorpusDocument | Flaw]:
    """Documents of at least ``characters``, cut at empty lines; what is left at the end is one, too."""
    held: list[str] = []
    size = first = 0
    for number, line in streams.lines(piece.path, recipe.max_document_bytes, known.encoding):
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
                yield CorpusDocument(piece.path, first, "\n".join(held).rstrip("\n"), is_part=True)
                held, size, first = [], 0, 0
            elif held[-1]:
                held.append("")
    if held:
        yield CorpusDocument(piece.path, first, "\n".join(held).rstrip("\n"), is_part=True)


def _too_long(place: str, what: str, recipe: Recipe, hint: str = "") -> Flaw:
    return Flaw("too_long", place, f"{what} has more than {recipe.max_document_bytes} bytes (max_document_bytes){hint}")
