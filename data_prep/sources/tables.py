"""Rows of CSV, Parquet and Arrow, a few at a time."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_prep.common.errors import Flaw, of_extra
from data_prep.sources import streams
from data_prep.sources.json_rows import HINT, Found

_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_QUOTED = re.compile('"[^"]*"')
_BATCH = 256
_SIMPLE = re.compile(r"(large_)?string(_view)?|bool|u?int\d+|float|double|null")
"""Types of Arrow whose values are those of JSON."""


def delimited(path: str, form: str, limit: int, encoding: str) -> Found:
    """(line, row) of a CSV or TSV file whose first line names the columns. Every cell is text; an empty one is None.

    Raises:
        Broken: the file is packed, and cut off or damaged.
    """
    csv.field_size_limit(max(limit, 1 << 17))
    with streams.open_bytes(path, encoding) as raw:
        stream = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        first = stream.readline(limit)
        delimiter = "\t" if form == "tsv" else max(",;\t", key=_QUOTED.sub("", first).count)
        rows = csv.reader(itertools.chain([first], stream), delimiter=delimiter, strict=True)
        names: list[str] = []
        while True:
            line = rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                yield Flaw("not_csv", f"{path}:{line}", f"is not {form.upper()}: {error}")
                return
            except Exception as error:
                if (found := streams.broken(error, line)) is None:
                    raise
                raise found from error
            if cells is None:
                return
            if not names:
                names = [name.strip() or f"Unnamed: {at}" for at, name in enumerate(cells)]
                if flaw := _repeated(path, names):
                    yield flaw
                    return
            elif cells:
                yield _row(f"{path}:{line}", line, names, cells)


def _row(place: str, line: int, names: list[str], cells: list[str]) -> tuple[int, dict[str, Any]] | Flaw:
    if len(cells) != len(names):
        return Flaw("wrong_columns", place, f"has {len(cells)} cells, but the first line names {len(names)} columns")
    if _NOT_UTF8.search("".join(cells)):
        return Flaw("not_utf8", place, f"is not UTF-8; {HINT}")
    return line, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _repeated(path: str, names: list[str]) -> Flaw | None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    return None if twice is None else Flaw("repeated_key", f"{path}:1", f'has the column "{twice}" twice')


def columnar(path: str, form: str, columns: Sequence[str] | None) -> Found:
    """(number, row) of a Parquet or Arrow file, from 1; of ``columns`` those that it has, of which it must have the
    first."""
    pyarrow = of_extra("pyarrow", f"a file of {form.capitalize()}")
    read = 0
    try:
        names, batches = _parquet(path, columns) if form == "parquet" else _arrow(path)
        if flaw := _repeated(path, names):
            yield Flaw(flaw.reason, path, flaw.text)
            return
        if columns is not None and columns[0] not in names:
            known = ", ".join(f'"{name}"' for name in names[:8])
            yield Flaw("missing_field", path, f'column "{columns[0]}" is missing; it has {known}')
            return
        for batch in batches:
            if columns is not None and form == "arrow":
                batch = batch.select([name for name in names if name in columns])
            odd = [field.name for field in batch.schema if not _SIMPLE.fullmatch(str(field.type))]
            for row in batch.to_pylist():
                read += 1
                yield read, {**row, **{name: _plain(row[name]) for name in odd}}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # OSError: damaged pages
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if not read:
            yield Flaw("broken_archive", path, f"is not a readable {form.capitalize()} file: {said}")
        else:
            place = f"{path}:{read + 1}"
            yield Flaw("broken_archive", place, f"from this row on the {form.capitalize()} file cannot be read: {said}")


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates, times and decimal numbers are texts. Within a value, a field that is null is
    missing: an Arrow table fills in the fields that other rows have (TRL takes them out, too)."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bytes) else str(value)


def _parquet(path: str, columns: Sequence[str] | None) -> tuple[list[str], Iterator[Any]]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20)
    names = table.schema_arrow.names
    wanted = None if columns is None else [name for name in names if name in columns]
    return names, table.iter_batches(batch_size=_BATCH, columns=wanted)


def _arrow(path: str) -> tuple[list[str], Iterator[Any]]:
    """Both forms of Arrow: the stream, which ``save_to_disk`` of datasets writes, and the file (Feather)."""
    import pyarrow.ipc

    source = pyarrow.memory_map(path)
    if source.read(6) == b"ARROW1":
        source.seek(0)
        table = pyarrow.ipc.open_file(source)
        found = (table.get_batch(number) for number in range(table.num_record_batches))
    else:
        source.seek(0)
        table = found = pyarrow.ipc.open_stream(source)
    small = (batch.slice(start, _BATCH) for batch in found for start in range(0, batch.num_rows, _BATCH))
    return table.schema.names, small
