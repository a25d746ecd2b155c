"""What a file or directory of a user holds: texts, instructions or preferences, in which form, and how much of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError, Flaw
from data_prep.rows import forms
from data_prep.rows.fields import Fields, renamed
from data_prep.rows.messages import Unfit, written
from data_prep.sources import formats, layout, reader
from data_prep.sources.files import rows_of

LOOKED_AT = 20_000
"""The most rows of a data set that are read."""


class UnknownForm(DataError):
    """Rows whose fields have names of their own. ``names``: of the first one."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True)
class Recognised:
    """What was found.

    Attributes:
        kind: ``corpus``, ``instructions`` or ``preferences``.
        form: by its name in ``docs/data.md``.
        rows: how many, or files of text; ``more``: there are more than were read.
        talks: rows are conversations, which a chat template turns into text.
        unused: fields that no form uses, to leave out.
        columns: our name of a field -> that of the rows, as it was given.
        size: bytes of UTF-8 of the longest of 95 % of the rows; ``total``: of all that were read.
        has_test: the files have a test split of their own.
        needs_prepare: without ``prepare`` a stage does not read it.
    """

    kind: str
    form: str
    rows: int
    more: bool
    talks: bool
    unused: tuple[str, ...]
    size: int
    total: int
    has_test: bool
    needs_prepare: bool
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """For people."""
        what = {"corpus": "texts", "instructions": "instructions", "preferences": "preferences"}[self.kind]
        columns = "".join(f'; {name}: "{theirs}"' for name, theirs in self.columns.items())
        leave = f"; fields left out: {', '.join(self.unused)}" if self.unused else ""
        return f"{'at least ' if self.more else ''}{self.rows:,} {what} ({self.form}){columns}{leave}"


def recognise(path: Path, columns: Mapping[str, str] | None = None) -> Recognised:
    """What ``path`` holds. ``columns``: names of its rows' fields, where they are not those of a form.

    Raises:
        UnknownForm: its rows are of no known form.
        DataError: it is not there, is no data set, or of several forms; with file and line.
    """
    files = layout.data_files(path)
    if not files:
        raise DataError("has no data in it", path)
    splits = {_split_of(path, file) for file in files}
    rows = [file for file in files if formats.look(str(file)).is_rows]
    if not rows:
        return _texts(files, "test" in splits)
    return _Rows(rows, columns or {}).look("test" in splits)


def fields_of(path: Path) -> tuple[str, ...]:
    """The names of the fields of the first row; empty: there are no rows. Raises DataError: it cannot be read."""
    rows = [file for file in layout.data_files(path) if formats.look(str(file)).is_rows]
    return next((tuple(row) for file in rows for _, row in flawless(str(file))), ())


def readable(kind: str, source: Path, *, prepared: bool) -> int:
    """How many rows of ``source`` a data stage of this kind reads, of the first ``LOOKED_AT``; 0 for texts.
    ``prepared``: it has ``prepare``, which knows more forms. Raises DataError: a row that ends the stage; with file and
    line."""
    seen = 0
    for path in layout.data_files(source):
        known = formats.look(str(path))
        if known.refused:
            raise DataError(known.refused, path)
        if path.stat().st_size == 0:
            raise DataError("is empty", path)
        if not known.is_rows:
            continue
        before = seen
        found: Iterator[object] = flawless(str(path)) if prepared else rows_of(kind, str(path), known)
        for _ in itertools.islice(found, LOOKED_AT - seen):
            seen += 1
        if seen == before and seen < LOOKED_AT:
            raise DataError("has no rows", path)
    return seen


def flawless(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file with their lines. Raises DataError: one cannot be read."""
    for found in reader.rows(path):
        if isinstance(found, Flaw):
            raise DataError(f"{found.place}: {found.text}")
        yield found


def _split_of(path: Path, file: Path) -> str:
    parts = (*file.relative_to(path).parts[:-1], file.name.partition(".")[0]) if path.is_dir() else ()
    return next((part for part in parts if part in ("test", "validation")), "")


def _texts(files: list[Path], has_test: bool) -> Recognised:
    sizes = []
    for file in files[:LOOKED_AT]:
        known = formats.look(str(file))
        if known.refused:
            raise DataError(known.refused, file)
        sizes.append(file.stat().st_size)
    form = "html" if any(formats.look(str(file)).form == "html" for file in files[:LOOKED_AT]) else "text"
    more = len(files) > LOOKED_AT
    return Recognised("corpus", form, len(sizes), more, False, (), _most(sizes), sum(sizes), has_test, form == "html")


class _Rows:
    def __init__(self, files: list[Path], columns: Mapping[str, str]) -> None:
        self._files = files
        self._columns = columns
        self._kinds: Counter[str] = Counter()
        self._forms: Counter[str] = Counter()
        self._unused: set[str] = set()
        self._sizes: list[int] = []
        self._talks = False

    def look(self, has_test: bool) -> Recognised:
        found = self._found()
        for place, row in itertools.islice(found, LOOKED_AT):
            self._see(place, row)
        if not self._sizes:
            raise DataError("has no rows", self._files[0])
        more = next(found, None) is not None
        ((kind, _),) = self._kinds.items()
        form = self._forms.most_common(1)[0][0]
        sizes = self._sizes
        whole = (len(sizes), more, self._talks, tuple(sorted(self._unused)), _most(sizes), sum(sizes))
        return Recognised(kind, form, *whole, has_test, kind != "corpus", self._columns)

    def _found(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for file in self._files:
            for number, row in flawless(str(file)):
                yield f"{file}:{number}", row

    def _see(self, place: str, row: dict[str, Any]) -> None:
        try:
            fields = Fields(renamed(row, self._columns))
            kind, form, text, talks = _of_row(fields)
        except Unfit as error:
            if error.reason == "unknown_form":
                raise UnknownForm(f"{place}: {error}", tuple(row)) from error
            raise DataError(f"{place}: {error}") from error
        if kind != "corpus":
            self._unused.update(fields.unused())
        self._kinds[kind] += 1
        if len(self._kinds) > 1:
            raise DataError(f"{place}: is of {kind}, and rows before it are not: keep the kinds in files of their own")
        self._forms[form] += 1
        self._talks = self._talks or talks
        self._sizes.append(len(text.encode("utf-8", "replace")))


def _of_row(fields: Fields) -> tuple[str, str, str, bool]:
    """Kind, form, text, and whether it is a conversation."""
    asks = any(name in fields for name in ("messages", "conversations", "conversation", "prompt", "instruction"))
    if "text" in fields and not asks:
        return "corpus", "rows of text", fields.text("text"), False
    pair = fields.has("chosen", "rejected") or fields.has("prompt", "answers")
    example = forms.preferences(fields) if pair else forms.instructions(fields)
    answer = max(example.answers, key=lambda one: len(written(one)))
    texts = written([*example.before, *answer])
    return "preferences" if pair else "instructions", example.form, texts, not example.texts


def _most(sizes: list[int]) -> int:
    return sorted(sizes)[min(len(sizes) - 1, len(sizes) * 95 // 100)]
