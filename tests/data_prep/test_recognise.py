"""What a user's file or directory is recognised as, and which error there is where it is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError
from data_prep.recognise import UnknownForm, fields_of, recognise

CHAT = {"messages": [{"role": "user", "content": "Say yes."}, {"role": "assistant", "content": "yes"}]}
PAIR = {"prompt": "Say yes.", "chosen": "yes", "rejected": "no"}


def rows(path: Path, *found: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "kind", "form", "talks"),
    [
        (CHAT, "instructions", "messages", True),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "instructions", "sharegpt", True),
        ({"instruction": "a", "input": "", "output": "b"}, "instructions", "alpaca", False),
        ({"input": "a", "output": "b"}, "instructions", "input-output", False),
        ({"prompt": "a", "completion": "b"}, "instructions", "prompt", False),
        (PAIR, "preferences", "pair", False),
        ({"chosen": CHAT["messages"], "rejected": [CHAT["messages"][0], {"role": "assistant", "content": "no"}]}, "preferences", "conversations", True),
        ({"text": "a text"}, "corpus", "rows of text", False),
    ],
)  # fmt: skip
def test_forms(row: dict[str, Any], kind: str, form: str, talks: bool, tmp_path: Path) -> None:
    found = recognise(rows(tmp_path / "a.jsonl", row, row))
    assert (found.kind, found.form, found.talks, found.rows, found.more) == (kind, form, talks, 2, False)
    assert found.needs_prepare == (kind != "corpus")


def test_texts_and_their_size(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("x" * 10)
    (tmp_path / "t" / "b.md").write_text("y" * 30)
    found = recognise(tmp_path / "t")
    assert (found.kind, found.form, found.rows, found.size, found.total) == ("corpus", "text", 2, 30, 40)


def test_size_is_of_95_percent_and_in_bytes(tmp_path: Path) -> None:
    many = [{"prompt": "a", "completion": "b" * 8}] * 99 + [{"prompt": "a", "completion": "b" * 999}]
    assert recognise(rows(tmp_path / "a.jsonl", *many)).size == 10
    assert recognise(rows(tmp_path / "b.jsonl", {"prompt": "가", "completion": "나"})).size == 7


def test_unused_fields_are_named_and_carried_ones_are_not(tmp_path: Path) -> None:
    found = recognise(rows(tmp_path / "a.jsonl", {**CHAT, "id": "1", "topic": "x"}, {**CHAT, "mood": "y", "url": "z"}))
    assert found.unused == ("mood", "topic")


def test_a_split_of_its_own_is_seen(tmp_path: Path) -> None:
    rows(tmp_path / "d" / "train.jsonl", PAIR)
    rows(tmp_path / "d" / "test.jsonl", PAIR)
    assert recognise(tmp_path / "d").has_test
    assert not recognise(tmp_path / "d" / "train.jsonl").has_test


def test_what_cannot_be_read_is_named_with_its_place(tmp_path: Path) -> None:
    for text, words in (
        ('{"prompt": "a"', "bad.jsonl:1"),
        ("", "bad.jsonl"),
        ('{"a": 1}\n', "bad.jsonl:1: has no form"),
        (json.dumps(PAIR) + "\n" + json.dumps(CHAT) + "\n", "bad.jsonl:2: is of instructions"),
        ('{"prompt": "a", "completion": "b", "label": true}\n', "KTO"),
    ):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(DataError, match=words):
            recognise(tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match="no such file"):
        recognise(tmp_path / "none")


def test_a_large_file_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.recognise.LOOKED_AT", 3)
    found = recognise(rows(tmp_path / "a.jsonl", *[PAIR] * 5))
    assert (found.rows, found.more) == (3, True)
    assert found.words.startswith("at least 3 preferences")


def test_a_table_with_columns_of_its_own(tmp_path: Path) -> None:
    table = tmp_path / "faq.csv"
    table.write_text("\ufeffNo.;Customer question;Approved answer\n1;How?;So.\n2;Why?;Because.\n", encoding="utf-8")
    assert fields_of(table) == ("No.", "Customer question", "Approved answer")
    with pytest.raises(UnknownForm, match="has no form of instructions") as raised:
        recognise(table)
    assert raised.value.names == fields_of(table)
    columns = {"prompt": "Customer question", "completion": "Approved answer"}
    found = recognise(table, columns)
    assert (found.kind, found.form, found.rows, found.unused, found.columns) == (
        "instructions", "prompt", 2, ("No.",), columns,
    )  # fmt: skip
    assert found.words == (
        '2 instructions (prompt); prompt: "Customer question"; completion: "Approved answer"; fields left out: No.'
    )
