from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError, SettingsError
from data_prep.common.settings import SPLITS, Settings
from data_prep.sources import files
from jobs.core.verdict import FailureClass, classify
from tests.support.catalogues import read_rows, source_of

Make = Callable[..., Path]
PATH: dict[str, Any] = {"source": {"type": "path"}, "split": {"validation": 0.1, "test": 0.2}}


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def all_rows(output: Path) -> list[dict[str, str]]:
    return [row for split in SPLITS for row in read_rows(output / f"{split}.jsonl")]


def test_instructions_in_both_forms(tmp_path: Path, make: Make) -> None:
    one = lines(tmp_path / "one.jsonl", [{"prompt": f"Say {n}", "completion": f"{n}!"} for n in range(60)])
    other = lines(tmp_path / "two.jsonl", [{"input": f"Tell {n}", "output": "yes", "category": 1} for n in range(60)])
    output = make("instructions", PATH, sources=(source_of(one), source_of(other)))
    rows = all_rows(output)
    assert len(rows) == 120
    assert {"prompt": "Tell 7", "completion": "yes"} in [
        {name: row[name] for name in ("prompt", "completion")} for row in rows
    ]
    swapped = make("instructions", PATH, name="-swapped", sources=(source_of(other), source_of(one)))
    for split in SPLITS:
        assert (output / f"{split}.jsonl").read_bytes() == (swapped / f"{split}.jsonl").read_bytes()
    card = json.loads((output / "card.json").read_text())
    assert [entry["sha256"] for entry in card["sources"]] == [source_of(one).sha256, source_of(other).sha256]


def test_rows_of_one_prompt_stay_together(tmp_path: Path, make: Make) -> None:
    rows = [{"prompt": f"{'Say' if n % 2 else 'SAY'} {n // 2}!", "completion": f"answer {n}"} for n in range(200)]
    output = make("instructions", PATH, sources=(source_of(lines(tmp_path / "a.jsonl", rows)),))
    where = {split: {row["prompt"].casefold() for row in read_rows(output / f"{split}.jsonl")} for split in SPLITS}
    assert not where["train"] & (where["test"] | where["validation"])
    assert not where["test"] & where["validation"]
    assert len(all_rows(output)) == 200


def test_preferences(tmp_path: Path, make: Make) -> None:
    rows = [{"prompt": f"p {n}", "chosen": "good", "rejected": "bad"} for n in range(60)]
    rows += [{"prompt": "p 0", "chosen": "good", "rejected": "bad"}, {"prompt": "q", "chosen": "a", "rejected": "a "}]
    rows += [{"prompt": "w", "chosen": "x", "rejected": "y"}, {"prompt": "w", "chosen": "y", "rejected": "x"}]
    output = make("preferences", PATH, sources=(source_of(lines(tmp_path / "a.jsonl", rows)),))
    card = json.loads((output / "card.json").read_text())
    assert card["dropped"] == {"contradiction": 2, "duplicate": 1, "no_difference": 1}
    assert card["read"] == 64


def test_corpus_of_texts_and_rows(tmp_path: Path, make: Make) -> None:
    text = tmp_path / "a.txt"
    paragraphs = [f"Paragraph {n} of a long text.\nIt has two lines." for n in range(200)]
    text.write_text("\n\n".join(paragraphs) + "\n\n\n", encoding="utf-8")
    note = tmp_path / "b.md"
    note.write_bytes("\ufeff# Título\r\n\r\nSótão\r\n".encode())
    rows = lines(tmp_path / "c.jsonl", [{"text": f"Row {n}\n\nwith two parts"} for n in range(40)])
    output = make(
        "corpus", {**PATH, "document_chars": 300}, sources=tuple(source_of(path) for path in (text, note, rows))
    )
    texts = [row["text"] for row in all_rows(output)]
    assert "# Título\n\nSótão" in texts
    assert "Row 3\n\nwith two parts" in texts
    own = [value for value in texts if value.startswith("Paragraph")]
    assert sorted("\n\n".join(own).split("\n\n")) == sorted(paragraphs)
    assert all(150 <= len(value) < 450 for value in own)
    card = json.loads((output / "card.json").read_text())
    assert card["read"] == card["kept"] == 242


BAD: list[tuple[str, bytes, str]] = [
    ("instructions", b'{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n', r"x\.jsonl:2: is not JSON"),
    ("instructions", b'{"prompt": "a", "completion": "b", "prompt": "c"}\n', r'x\.jsonl:1: has the key "prompt" twice'),
    ("instructions", b'["a"]\n', r"x\.jsonl:1: is a JSON list, not an object"),
    ("instructions", b'{"prompt": "a"}\n', r'x\.jsonl:1: field "completion" is missing; a row of instructions is'),
    ("instructions", b'{"input": "a", "out": "b"}\n', r'x\.jsonl:1: field "output" is missing'),
    ("instructions", b'{"prompt": null, "completion": "b"}\n', r'x\.jsonl:1: field "prompt" is null'),
    ("instructions", b'{"prompt": 3, "completion": "b"}\n', r'x\.jsonl:1: field "prompt" is int, not a text'),
    ("instructions", b'{"prompt": " ", "completion": "b"}\n', r'x\.jsonl:1: field "prompt" is empty'),
    ("corpus", b'{"text": "\\ud800"}\n', r'x\.jsonl:1: field "text" has half a surrogate pair at character 1'),
    ("corpus", b'{"text": "a"}\n{"text": "\xe9"}\n', r"x\.jsonl:2: is not UTF-8: byte 0xe9 at column 11"),
    ("corpus", b"[" * 100_000, r"x\.jsonl:1: is not a row: JSON nested too deeply|x\.jsonl:1: is not JSON"),
    ("preferences", b'{"prompt": "a", "chosen": "b"}\n', r'x\.jsonl:1: field "rejected" is missing'),
    ("corpus", b"", r"x\.jsonl: is empty"),
]


@pytest.mark.parametrize(("kind", "content", "message"), BAD, ids=[entry[2][:40] for entry in BAD])
def test_bad_rows_have_a_place(tmp_path: Path, make: Make, kind: str, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        make(kind, PATH, sources=(source_of(path),))
    assert classify(caught.value) is FailureClass.DATA_ERROR
    assert str(caught.value).startswith(str(path))


def test_changed_file_is_refused(tmp_path: Path, make: Make) -> None:
    path = lines(tmp_path / "a.jsonl", [{"text": f"row {n}"} for n in range(50)])
    planned = source_of(path)
    path.write_text(path.read_text().replace("row 7", "row 8"))
    with pytest.raises(DataError, match=r"a\.jsonl: changed since this run was planned: sha256 .* plan and submit"):
        make("corpus", PATH, sources=(planned,))


def test_missing_blank_and_unknown_files(tmp_path: Path, make: Make) -> None:
    blank = tmp_path / "a.txt"
    blank.write_text("\n \n")
    with pytest.raises(DataError, match=r"a\.txt: has no rows"):
        make("corpus", PATH, sources=(source_of(blank),))
    with pytest.raises(DataError, match=r"a\.txt: a file of preferences must end in \.jsonl, "):
        make("preferences", PATH, sources=(source_of(blank),))
    with pytest.raises(DataError, match=r"gone\.txt: is not there any more") as missing:
        make("corpus", PATH, name="2", sources=(replace(source_of(blank), path=str(tmp_path / "gone.txt")),))
    assert classify(missing.value) is FailureClass.MISSING_INPUT
    with pytest.raises(DataError, match="no source files are given"):
        make("corpus", PATH, name="3")


SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("sft", PATH, "does not make 'sft'"),
    ("corpus", {}, "setting source: missing"),
    ("corpus", {**PATH, "promt": "x"}, "setting promt: unknown; known: source, split"),
    ("corpus", {**PATH, "prompt": "{source}"}, "setting prompt: unknown"),
    ("instructions", {**PATH, "prompt": "Translate"}, "setting prompt: must be a text with {source} in it once"),
    (
        "corpus",
        {"source": {"type": "url"}},
        r"setting source\.type: must be one of gettext, path, word_problems, not 'url'",
    ),
    ("corpus", {"source": {"type": "path", "target": ["pt"]}}, r"setting source\.target: only for source type gettext"),
    ("corpus", {"source": {"type": "gettext", "target": "pt"}}, r"setting source\.target: must be a list of words"),
    ("preferences", {"source": {"type": "gettext", "contrast": []}}, "preferences need a locale to reject"),
    ("corpus", {"source": {"type": "gettext", "placeholders": "mask"}}, "must be one of drop, keep"),
    ("corpus", {**PATH, "split": {"test": 1.2}}, r"setting split\.test: must be below 1, not 1\.2"),
    ("corpus", {**PATH, "split": {"test": 0.6, "validation": 0.4}}, "leave nothing to train on"),
    ("corpus", {**PATH, "limit": {"train": 0}}, r"setting limit\.train: must be a whole number of at least 1, not 0"),
    ("corpus", {**PATH, "min_chars": 9, "max_chars": 8}, "must not be less than min_chars"),
    ("corpus", {**PATH, "document_chars": True}, "setting document_chars: must be a whole number"),
]


@pytest.mark.parametrize(("kind", "value", "message"), SETTINGS, ids=[entry[2][:30] for entry in SETTINGS])
def test_settings_are_strict(kind: str, value: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.parse(kind, value)
    assert classify(caught.value) is FailureClass.BAD_CONFIGURATION


def test_null_means_default() -> None:
    settings = Settings.parse("corpus", {**PATH, "limit": {"train": None}, "max_chars": None, "document_chars": None})
    assert settings == Settings.parse("corpus", PATH)


@pytest.mark.parametrize(
    ("kind", "row", "name"),
    [
        ("instructions", {"instruction": "Translate.", "input": "yes", "output": "ja"}, "instruction"),
        ("instructions", {"system": "Be brief.", "prompt": "Hi", "completion": "Hello"}, "system"),
        ("instructions", {"prompt": "Hi", "completion": "Hello", "label": False}, "label"),
        ("instructions", {"prompt": "Hi", "completion": "Hello", "weight": 0}, "weight"),
        ("instructions", {"input": "Hi", "output": "Hello", "history": [["a", "b"]]}, "history"),
        ("instructions", {"input": "Hi", "output": "Hello", "tools": [{"name": "f"}]}, "tools"),
        ("preferences", {"system": "Be brief.", "prompt": "Hi", "chosen": "a", "rejected": "b"}, "system"),
        ("preferences", {"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": 0.0}, "score_chosen"),
    ],
)
def test_no_field_is_dropped_in_silence(tmp_path: Path, make: Make, kind: str, row: dict[str, Any], name: str) -> None:
    path = lines(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError, match=rf'a\.jsonl:1: field "{name}" is not used.*prepare: {{}}.*ignore: \[{name}\]'):
        make(kind, PATH, sources=(source_of(path),))


def test_fields_about_a_row_are_counted_and_empty_ones_are_none(tmp_path: Path, make: Make) -> None:
    rows = [{"prompt": f"p {n}", "completion": "x", "id": n, "system": None, "history": []} for n in range(60)]
    rows[3]["url"] = "here"
    output = make("instructions", PATH, sources=(source_of(lines(tmp_path / "a.jsonl", rows)),))
    assert json.loads((output / "card.json").read_text())["ignored_fields"] == {"id": 60, "url": 1}


def test_conversations_say_what_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "x"}]}) + "\n")
    with pytest.raises(DataError, match=r"prepare: \{\}"):
        list(files.rows("instructions", (source_of(file),), lambda step, total: None))
