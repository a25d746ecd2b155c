"""Every form of file that people have gives the same rows, in every stage that reads files, with a place for errors."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.build import build
from data_prep.common.errors import DataError, Flaw, SettingsError
from data_prep.common.settings import SPLITS, Settings
from data_prep.sources import reader
from tests.support.catalogues import source_of
from tests.support.prepared import make

ALL = {"validation": 0, "test": 0}
ROWS = [{"prompt": f"Frage {n}: é ü 你 😀?", "completion": f'Antwort, "{n}"\nzwei; drei\t'} for n in range(7)]


def _lines(rows: list[dict[str, Any]], end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


def _csv(path: Path, rows: list[dict[str, Any]], **form: Any) -> None:
    with open(path, "w", encoding=form.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **form)
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)


def _arrow(path: Path, stream: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


FORMS: dict[str, Callable[[Path], None]] = {
    "a.jsonl": lambda path: path.write_text(_lines(ROWS), "utf-8"),
    "crlf.jsonl": lambda path: path.write_bytes(_lines(ROWS, "\r\n").encode()),
    "no-end.jsonl": lambda path: path.write_text(_lines(ROWS).rstrip("\n"), "utf-8"),
    "blank.jsonl": lambda path: path.write_text("\n \n" + _lines(ROWS, "\n\n\t\n") + "\n\n", "utf-8"),
    "b.ndjson": lambda path: path.write_text(_lines(ROWS), "utf-8"),
    "lines.json": lambda path: path.write_text(_lines(ROWS), "utf-8"),
    "list.json": lambda path: path.write_text(json.dumps(ROWS), "utf-8"),
    "pretty.json": lambda path: path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False) + "\n", "utf-8"),
    "list.jsonl": lambda path: path.write_text(json.dumps(ROWS), "utf-8"),
    "pretty.jsonl": lambda path: path.write_text("\n  " + json.dumps(ROWS, indent="\t"), "utf-8"),
    "a-line-each.json": lambda path: path.write_text(
        "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n", "utf-8"
    ),
    "one-after-the-other.json": lambda path: path.write_text("\n".join(json.dumps(row, indent=1) for row in ROWS)),
    "one-after-the-other.jsonl": lambda path: path.write_text("\n".join(json.dumps(row, indent=1) for row in ROWS)),
    "bom.json": lambda path: path.write_text(json.dumps(ROWS, indent=2), "utf-8-sig"),
    "a.csv": lambda path: _csv(path, ROWS),
    "all-quoted.csv": lambda path: _csv(path, ROWS, quoting=csv.QUOTE_ALL, lineterminator="\n"),
    "semicolon.csv": lambda path: _csv(path, ROWS, delimiter=";"),
    "bom.csv": lambda path: _csv(path, ROWS, encoding="utf-8-sig"),
    "a.tsv": lambda path: _csv(path, ROWS, delimiter="\t"),
    "a.parquet": _parquet,
    "stream.arrow": lambda path: _arrow(path, True),
    "file.arrow": lambda path: _arrow(path, False),
    "a.feather": lambda path: _arrow(path, False),
    "parquet-named.jsonl": _parquet,
    "utf16.jsonl": lambda path: path.write_text(_lines(ROWS), "utf-16"),
    "utf16.json": lambda path: path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), "utf-16"),
    "utf16-big.jsonl": lambda path: path.write_bytes(b"\xfe\xff" + _lines(ROWS).encode("utf-16-be")),
    "utf32.jsonl": lambda path: path.write_text(_lines(ROWS), "utf-32"),
    "utf16.csv": lambda path: _csv(path, ROWS, encoding="utf-16"),
}


def _zstd(content: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(content))


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".zst": _zstd, ".xz": lzma.compress, ".bz2": bz2.compress,
}  # fmt: skip


def read(path: Path, **given: Any) -> list[Any]:
    return [found if isinstance(found, Flaw) else found[1] for found in reader.rows(str(path), **given)]


def without_prepare(path: Path, output: Path, kind: str = "instructions") -> list[dict[str, str]]:
    output.mkdir()
    build(Settings.parse(kind, {"source": {"type": "path"}, "split": ALL}), output, sources=(source_of(path),))
    return [json.loads(line) for name in SPLITS for line in (output / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows_everywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FORMS[name](path)
    assert read(path) == ROWS
    wanted = {(row["prompt"], row["completion"]) for row in ROWS}
    make("instructions", [path], tmp_path / "rows", split=ALL)
    made = [json.loads(line) for line in (tmp_path / "rows/train.jsonl").read_text("utf-8").splitlines()]
    assert {(row["prompt"], row["completion"]) for row in made} == wanted
    assert {(row["prompt"], row["completion"]) for row in without_prepare(path, tmp_path / "plain")} == wanted
    make("corpus", [path], tmp_path / "corpus", split=ALL, quality=False, text_field="prompt", near_duplicates=None)
    made = [json.loads(line) for line in (tmp_path / "corpus/train.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in made] == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.parametrize("name", ["a.jsonl", "pretty.json", "a.csv", "utf16.jsonl"])
@pytest.mark.parametrize("honest", [True, False])
def test_packed_files_are_known_by_their_content(tmp_path: Path, name: str, ending: str, honest: bool) -> None:
    FORMS[name](tmp_path / name)
    packed = tmp_path / (f"x-{name}{ending}" if honest else f"x-{name}")
    packed.write_bytes(PACKINGS[ending]((tmp_path / name).read_bytes()))
    assert read(packed) == ROWS
    lying = tmp_path / f"{name}{ending}"  # plain in spite of its name
    lying.write_bytes((tmp_path / name).read_bytes())
    assert read(lying) == ROWS


@pytest.mark.parametrize("ending", PACKINGS)
def test_a_packed_file_that_is_cut_off_tells_the_line(tmp_path: Path, ending: str) -> None:
    rows = [{"prompt": f"{n} {hash(n * 7919) ** 9 % 10**40}", "completion": "x"} for n in range(5000)]
    whole = PACKINGS[ending](_lines(rows).encode())
    for name in (f"a.jsonl{ending}", "a.jsonl"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        *good, flaw = read(tmp_path / name)
        assert isinstance(flaw, Flaw)
        assert good == rows[: len(good)]
        assert flaw.place == f"{tmp_path / name}:{len(good) + 1}"
        assert (flaw.reason, flaw.text[:31]) == ("broken_archive", "its packed data is cut off or d")


def test_a_python_without_lzma_reads_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    FORMS["a.jsonl"](tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert read(tmp_path / "b.jsonl") == ROWS
    (tmp_path / "c.jsonl").write_bytes(lzma.compress((tmp_path / "a.jsonl").read_bytes()))
    with pytest.raises(SettingsError, match=r"c\.jsonl: this Python has no module for xz .*: unpack the file"):
        read(tmp_path / "c.jsonl")


LATIN = [{"prompt": f"Größe {n}?", "completion": "façade €".replace("€", "é")} for n in range(3)]


@pytest.mark.parametrize(
    ("encoding", "name"), [("latin-1", "iso8859-1"), ("utf-16-le", "utf-16-le"), ("cp1252", "cp1252")]
)
def test_a_declared_encoding_is_used(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_lines(LATIN).encode(encoding))
    make("instructions", [path], tmp_path / "rows", split=ALL, encoding=encoding)
    made = [json.loads(line) for line in (tmp_path / "rows/train.jsonl").read_text("utf-8").splitlines()]
    assert {row["prompt"] for row in made} == {row["prompt"] for row in LATIN}
    card = json.loads((tmp_path / "rows/card.json").read_text())
    assert card["settings"]["prepare"]["encoding"] == name
    text = tmp_path / "b.txt"
    text.write_bytes("Größe und façade\n".encode(encoding))
    make("corpus", [text], tmp_path / "corpus", split=ALL, quality=False, encoding=encoding)
    assert json.loads((tmp_path / "corpus/train.jsonl").read_text("utf-8"))["text"] == "Größe und façade"
    says = r"(a\.jsonl|b\.txt)(:1: is not UTF-8: byte 0x..|: is full of NUL bytes)"
    for kind, file in (("instructions", path), ("corpus", text)):
        with pytest.raises(DataError, match=says):
            make(kind, [file], tmp_path / f"undeclared-{kind}", split=ALL)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "list.json", "a.txt"])
def test_utf_8_that_is_declared_as_something_else_is_refused(tmp_path: Path, name: str) -> None:
    """One of several files may be in another encoding than the declared one: its letters would be others."""
    path = tmp_path / name
    FORMS.get(name, lambda one: one.write_text("Größe\n", "utf-8"))(path)
    if name == "list.json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False), "utf-8")
    kind = "corpus" if name == "a.txt" else "instructions"
    with pytest.raises(
        DataError, match=rf"{name}: is UTF-8, and its letters would be read wrongly as (latin-1|iso8859-1)"
    ):
        make(kind, [path], tmp_path / "out", split=ALL, encoding="latin-1")
    path.write_bytes(path.read_text("utf-8").encode("latin-1", "replace"))
    make(
        kind,
        [path],
        tmp_path / "latin",
        split=ALL,
        encoding="latin-1",
        **({"quality": False} if kind == "corpus" else {}),
    )


@pytest.mark.parametrize("name", ["data", "train"])
def test_one_object_that_holds_the_rows_is_named(tmp_path: Path, name: str) -> None:
    for indent in (None, 2):
        (tmp_path / "a.json").write_text(json.dumps({name: ROWS}, indent=indent), "utf-8")
        (found,) = read(tmp_path / "a.json")
        assert isinstance(found, Flaw)
        assert f'is one object with a list in "{name}", not rows' in found.text


def test_dates_and_decimals_of_a_table_are_texts(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table(
        {
            "a": pa.array([0], pa.timestamp("us")), "b": pa.array([Decimal("1.5")]), "c": pa.array([{"d": date(2024, 1, 2)}]),
            "e": pa.array([[1.5, None]]), "f": pa.array(["x"]).dictionary_encode(), "g": pa.array([None], pa.date32()),
        }
    )  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        {"a": "1970-01-01 00:00:00", "b": "1.5", "c": {"d": "2024-01-02"}, "e": [1.5, None], "f": "x", "g": None}
    ]


def test_undeclared_latin_1_says_what_to_write(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": _lines(ROWS[:1]) + _lines(LATIN),
        "a.json": json.dumps([{"n": 1}, *LATIN], indent=0, ensure_ascii=False).replace('"n": 1', '"n":\n1'),
        "a.csv": "prompt,completion\na,b\nGröße,c\n",
    }.items():
        path = tmp_path / name
        raw = content.encode("utf-8") if name == "a.jsonl" else content.encode("latin-1")
        path.write_bytes(raw if name != "a.jsonl" else _lines(ROWS[:1]).encode() + _lines(LATIN).encode("latin-1"))
        flaw = next(found for found in read(path) if isinstance(found, Flaw))
        line = {"a.jsonl": 2, "a.json": 6, "a.csv": 3}[name]
        assert flaw.place == f"{path}:{line}"
        assert "is not UTF-8" in flaw.text
        assert "set encoding, such as latin-1" in flaw.text


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_utf_16_that_nothing_declares_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("Привет, мир. ".encode("utf-16-le") * 20)
    with pytest.raises(DataError, match=rf"{name}: is full of NUL bytes: if it is UTF-16, set encoding"):
        make("corpus", [path], tmp_path / "out", split=ALL)


def test_text_that_is_not_in_the_declared_encoding_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_lines(ROWS[:3]).encode("utf-16-le") + b"\x00\xdc\x00")
    *good, flaw = read(path, encoding="utf-16-le")
    assert good == ROWS[:3]
    assert (flaw.reason, flaw.place) == ("not_utf16le", f"{path}:4")
    for wrong in ("latin-17", "base64", "rot13", 8):
        with pytest.raises(SettingsError, match=r"setting prepare\.encoding: must be an encoding such as"):
            make("corpus", [path], tmp_path / f"out-{wrong}", encoding=wrong)


BAD: dict[str, tuple[str, int, str]] = {
    "twice.jsonl": ('{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n', 2, 'has the key "c" twice'),
    "twice.json": ('[{"a": 1},\n\n{"a": 1,\n "a": 2}]', 3, 'has the key "a" twice'),
    "twice.csv": ("a,b,a\n1,2,3\n", 1, 'has the column "a" twice'),
    "cells.csv": ("a,b\n1,2\n\n1,2,3\n", 4, "has 3 cells, but the first line names 2 columns"),
    "comma.jsonl": ('{"a": 1},\n{"a": 2}\n', 1, "a comma behind the object: lines have none between them"),
    "quote.csv": ('a,b\n1,"2\n3,4\n', 2, "is not CSV"),
    "open.json": ('[{"a": 1},\n{"a": 2}\n', 3, "the list has no end"),
    "comma.json": ('[{"a": 1}\n{"a": 2}]', 2, "a comma between two rows is missing"),
    "last-comma.json": ('[{"a": 1},\n]', 2, "is not JSON: Expecting value"),
    "behind.json": ('[{"a": 1}]\n[{"a": 2}]', 2, "there is something behind the end"),
    "inside.json": ('[{"a": 1},\n{"a":\n x}, ' + '{"a": 3}, ' * 50_000 + "{}]", 3, "is not JSON: Expecting value"),
    "cut.json": ('[{"a": 1},\n{"a": "b', 2, "is not JSON: Unterminated string"),
    "numbers.json": ("\n[1, 2]", 2, "is a JSON list, not an object or a list of these"),
    "later-number.json": ('[{"a": 1},\n 2]', 2, "is a JSON int, not an object"),
    "half.json": ('[{"a": 1},\n {"a": "x\\ud800"}]', 2, 'field "a" has half a surrogate pair at character 2'),
    "one.json": ('{"version": 1,\n "data": [{"a": 1}]}', 1, 'is one object with a list in "data"'),
    "deep.json": ("[" * 100_000, 1, "nested too deeply"),
    "empty.json": ("[]", 0, "has no rows"),
    "blank.jsonl": ("\n\n", 0, "has no rows"),
    "head.csv": ("a,b\n", 0, "has no rows"),
    "a.xlsx": ("PK\x03\x04", 0, "save the sheet as CSV"),
    "named.csv": ("PK\x03\x04", 0, "save the sheet as CSV"),
    "a.xls": ("x", 0, "save the sheet as CSV"),
    "a.pkl": ("x", 0, "is a pickle, which is never read"),
    "a.tar.gz": ("x", 0, "is an archive: unpack it"),
    "a.parquet": ("x" * 30, 0, "is not a readable Parquet file"),
    "a.arrow": ("x" * 30, 0, "is not a readable Arrow file"),
    "a.txt": ("x", 0, r"a file of rows must end in .jsonl, .ndjson, .json, .csv"),
    "a.doc": ("x", 0, "has an ending that is not read; known: .txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_has_a_place_and_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, line, says = BAD[name]
    path = tmp_path / name
    path.write_text(content, "utf-8")
    flaws = [found for found in read(path) if isinstance(found, Flaw)]
    assert flaws
    assert flaws[0].place == (f"{path}:{line}" if line else str(path))
    assert says in flaws[0].text
    with pytest.raises(DataError) as refused:
        without_prepare(path, tmp_path / "plain", "instructions")
    assert str(refused.value).startswith(str(path))


def test_rows_behind_a_bad_one_are_read_where_that_is_possible(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"a": 1, "a": 2}, 3, {"a": "\\udc00"}, {"a": 4}]')
    found = read(path)
    assert [row for row in found if not isinstance(row, Flaw)] == [{"a": 1}, {"a": 4}]
    assert [flaw.reason for flaw in found if isinstance(flaw, Flaw)] == [
        "repeated_key",
        "not_an_object",
        "half_surrogate",
    ]


def test_cells_stay_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,,when,x,yes\n007,1e5,2020-01-01,,"true"\n')
    assert read(tmp_path / "a.csv") == [
        {"id": "007", "Unnamed: 1": "1e5", "when": "2020-01-01", "x": None, "yes": "true"}
    ]


def test_a_mark_within_quotes_does_not_divide_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"prompt, long";completion\na;b, c\n')
    assert read(tmp_path / "a.csv") == [{"prompt, long": "a", "completion": "b, c"}]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_fields_that_a_table_has_filled_in_are_missing(tmp_path: Path, name: str) -> None:
    """Arguments of calls as Arrow keeps them; what a row itself says is null stays so in JSON."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    calls = [{"name": "one", "arguments": {"city": "Lisbon"}}, {"name": "two", "arguments": {"zip": [1, None]}}]
    table = pa.Table.from_pylist([{"calls": calls, "note": None}])
    if name == "a.parquet":
        pyarrow.parquet.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    assert read(tmp_path / name) == [{"calls": calls, "note": None}]
    (tmp_path / "a.jsonl").write_text('{"calls": [{"zip": null}]}\n')
    assert read(tmp_path / "a.jsonl") == [{"calls": [{"zip": None}]}]


@pytest.mark.parametrize("size", [100, 65_530, 70_000, 200_000])
def test_a_row_may_lie_anywhere_in_the_window(tmp_path: Path, size: int) -> None:
    rows = [{"a": "x" * (size + n), "n": [n, {"é": '"],[{\\'}]} for n in range(40)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), "utf-8")
    found = list(reader.rows(str(path)))
    assert [row for _, row in found] == rows  # type: ignore[misc]
    assert [line for line, _ in found] == [2 + 9 * n for n in range(40)]  # type: ignore[misc]


def test_a_row_that_is_too_long_is_told_and_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": "b"},\n{"a": "' + "x" * 3_000_000 + '"}]')
    *good, flaw = read(path, limit=100_000)
    assert good == [{"a": "b"}]
    assert (flaw.reason, flaw.place) == ("too_long", f"{path}:2")
    (tmp_path / "a.csv").write_text('a\nb\n"' + "x" * 3_000_000 + '"\n')
    assert [getattr(found, "reason", "") for found in read(tmp_path / "a.csv", limit=200_000)] == ["", "not_csv"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.xz", "a.parquet", "a.arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    rows = [{"a": f"{n} " + "lorem ipsum " * 80, "b": "x"} for n in range(20_000)]
    path = tmp_path / name
    if name.endswith((".parquet", ".arrow")):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        table = pa.Table.from_pylist(rows)
        if name == "a.parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=1000)
        del table
    elif name == "a.csv":
        _csv(path, rows)
    else:
        text = json.dumps(rows) if name == "a.json" else _lines(rows)
        path.write_bytes(lzma.compress(text.encode(), preset=0) if name.endswith(".xz") else text.encode())
    del rows
    tracemalloc.start()
    count = sum(1 for found in reader.rows(str(path)) if not isinstance(found, Flaw))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert most < 6_000_000  # of 20 MB


@pytest.mark.parametrize("kind", ["corpus", "instructions"])
def test_an_encoding_for_files_without_text_is_refused(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"], "prompt": ["a"], "completion": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"prepare\.encoding: no file is text"):
        make(kind, [tmp_path / "a.parquet"], tmp_path / "out", encoding="latin-1")
