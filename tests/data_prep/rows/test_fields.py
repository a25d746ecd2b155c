"""The fields of a row: taken, ignored, carried, not used."""

from __future__ import annotations

import math

import pytest

from data_prep.rows.fields import Fields, renamed
from data_prep.rows.messages import Unfit


def test_fields_are_ignored_and_carried_by_name() -> None:
    row = {"id": 7, "source": "web", "mood": "x", "score": 3, "messages": [{"role": "user", "mood": "y"}]}
    fields = Fields(row, ignore=["mood"], carry=["score"])
    assert fields.take("messages") == [{"role": "user"}]
    assert fields.ignored == {"mood": 2}
    assert fields.unused() == []
    assert fields.carried("messages") == {"id": 7, "source": "web", "score": 3}


def test_a_field_that_is_neither_used_nor_carried_is_named_with_what_to_write() -> None:
    fields = Fields({"messages": [], "mood": "x"})
    assert fields.unused() == ["mood"]
    with pytest.raises(Unfit, match=r'field "mood" is not used .*: write ignore: \[mood\] .*, or carry: \[mood\]'):
        fields.carried("messages")


@pytest.mark.parametrize("nothing", [None, math.nan, "", [], {}])
def test_an_empty_field_is_as_good_as_none(nothing: object) -> None:
    fields = Fields({"prompt": nothing, "completion": "x", "chosen": "y"})
    assert "prompt" not in fields
    assert not fields.has("prompt", "completion")
    assert fields.form([("prompt", "completion"), ("chosen",)]) == ("chosen",)
    assert fields.form([("prompt", "completion")]) == ("prompt", "completion")  # to say what is wrong with it
    assert "prompt" not in fields.unused()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, 'field "prompt" is missing'),
        ({"prompt": None}, 'field "prompt" is null'),
        ({"prompt": 1}, 'field "prompt" is int, not a text'),
        ({"prompt": " "}, 'field "prompt" is empty'),
    ],
)
def test_a_text_is_a_text_with_content(row: dict[str, object], says: str) -> None:
    with pytest.raises(Unfit, match=says):
        Fields(row).text("prompt")


def test_what_json_cannot_say_is_not_carried() -> None:
    for value, says in (
        (b"x", "bytes is not JSON"),
        (float("inf"), "float values are not JSON"),
        (object(), "not JSON"),
    ):
        with pytest.raises(Unfit, match=rf'field "source" cannot be kept with the row .*{says}.*ignore: \[source\]'):
            Fields({"source": value}).carried("text")


COLUMNS = {"prompt": "Question", "completion": "Approved answer"}


def test_columns_give_fields_our_names() -> None:
    row = {"No.": 1, "Question": "a?", "Approved answer": "b"}
    assert renamed(row, COLUMNS) == {"No.": 1, "prompt": "a?", "completion": "b"}
    assert renamed(row, {}) == row
    assert renamed(row, {**COLUMNS, "system": "System"}) == renamed(row, COLUMNS)  # not every row has one


def test_columns_swap_names_that_mean_something_else_here() -> None:
    row = {"prompt": "the answer", "completion": "the question"}
    assert renamed(row, {"prompt": "completion", "completion": "prompt"}) == {
        "prompt": "the question",
        "completion": "the answer",
    }


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"Question": "a?"}, 'has no field "Approved answer", which columns names, but the fields "Question"'),
        ({"Question": "a?", "Approved answer": "b", "prompt": "c"}, 'has a field "prompt" and also "Question"'),
    ],
)
def test_a_column_that_is_missing_or_there_twice_is_named(row: dict[str, str], says: str) -> None:
    with pytest.raises(Unfit, match=says):
        renamed(row, COLUMNS)
