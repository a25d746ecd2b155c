"""Rows of JSON lines (plain, .gz, .zst) and Parquet as dictionaries, with a ``Flaw`` for each that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_prep.card.account import Flaw
from data_prep.common.errors import SettingsError
from data_prep.corpus import streams
from data_prep.corpus.inputs import Piece, name_parts
from data_prep.corpus.read import broken_parquet, decode

LINE_BYTES = 10_000_000


def rows(path: str, size: int) -> Iterator[tuple[str, dict[str, Any]] | Flaw]:
    """(``file:line``, row) of every row of a file, or what is wrong with it."""
    form, packing = name_parts(path)
    if form not in (".jsonl", ".ndjson") and (form, packing) != (".parquet", ""):
        yield Flaw("unknown_format", path, "a file of rows must end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
        return
    nothing = True
    try:
        for found in _parquet(path) if form == ".parquet" else _json_lines(path, size):
            nothing = False
            yield found
    except streams.Broken as error:
        yield Flaw("broken_archive", error.place(path), str(error))
        return
    except OSError as error:
        yield Flaw("unreadable", path, f"cannot be read: {error.strerror or error}")
        return
    if nothing:
        yield Flaw("empty_file", path, "has no rows")


def _json_lines(path: str, size: int) -> Iterator[tuple[str, dict[str, Any]] | Flaw]:
    for number, line in streams.lines(Piece(path, 0, size, 0, 0), LINE_BYTES):
        place = f"{path}:{number}"
        if line is None:
            yield Flaw("too_long", place, f"this line has more than {LINE_BYTES} bytes")
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
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            yield Flaw("half_surrogate", place, "has half a surrogate pair in a text")
        except (ValueError, RecursionError) as error:
            yield Flaw("not_json", place, f"is not JSON: {error}")
        else:
            if isinstance(value, dict):
                yield place, value
            else:
                yield Flaw("not_an_object", place, f"is a JSON {type(value).__name__}, not an object")


def _parquet(path: str) -> Iterator[tuple[str, dict[str, Any]] | Flaw]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SettingsError(f'.parquet files need the extra "data": pip install "overnight[data]" ({error})') from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for value in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", value
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # OSError: damaged pages
        yield broken_parquet(path, number, error)
