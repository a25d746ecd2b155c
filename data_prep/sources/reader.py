"""The reader of all files of rows: JSON lines, lists of objects, CSV, TSV, Parquet, Arrow; plain or packed."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.common.errors import Flaw
from data_prep.sources import json_rows, streams, tables
from data_prep.sources.formats import ROWS, Format, look
from data_prep.sources.json_rows import FoundRows

ROW_BYTES = 10_000_000


def rows(
    path: str,
    *,
    encoding: str | None = None,
    limit: int = ROW_BYTES,
    columns: Sequence[str] | None = None,
    start: int = 0,
    end: int | None = None,
    first: int = 0,
) -> FoundRows:
    """(line, or number of the row, row) of every row of a file in order; a ``Flaw`` for what is none.

    Memory does not grow with the file. ``columns``: of a file with columns only these are needed; ``start``, ``end``,
    ``first``: a part of a file that can be cut, see ``streams.lines``.
    """
    nothing = True
    try:
        for found in _rows(path, look(path, encoding), limit, columns, (start, end, first)):
            nothing = False
            yield found
    except streams.Broken as error:
        yield Flaw(error.reason, error.place(path), str(error))
        return
    except OSError as error:
        yield Flaw("unreadable", path, f"cannot be read: {error.strerror or error}")
        return
    if nothing and start == 0:
        yield Flaw("empty_file", path, "has no rows")


def _rows(
    path: str, known: Format, limit: int, columns: Sequence[str] | None, part: tuple[int, int | None, int]
) -> FoundRows:
    if not known.is_rows:
        why = known.refused or f"a file of rows must end in {', '.join(ROWS)}"
        return iter([Flaw("unknown_format", path, why)])
    if known.form in ("csv", "tsv"):
        return tables.delimited(path, known.form, limit, known.encoding)
    if known.form in ("parquet", "arrow"):
        return tables.columnar(path, known.form, columns)
    if known.form == "json":
        return json_rows.values(path, limit, known.encoding)
    start, end, first = part if known.can_be_cut else (0, None, 0)
    found = streams.lines(path, limit, known.encoding, start=start, end=end, first=first)
    return json_rows.lines(path, found, limit)
