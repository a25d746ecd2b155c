from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common import text
from data_prep.common.settings import SPLITS, SplitSettings
from data_prep.common.split import Assignment, Groups, assign

links = st.lists(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=3), max_size=12)


@given(links, st.randoms())
def test_groups_do_not_depend_on_the_order(sets: list[list[str]], dice: object) -> None:
    one, other = Groups(), Groups()
    for names in sets:
        one.join(names)
    shuffled = [sorted(names, reverse=True) for names in sets]
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    for names in shuffled:
        other.join(names)
    assert Assignment(one, SplitSettings()).digest == Assignment(other, SplitSettings()).digest
    for names in sets:
        assert len({one.find(name) for name in names}) == 1
        assert one.find(names[0]) == other.find(names[0]) <= min(names)


@given(links)
def test_only_what_is_linked_is_joined(sets: list[list[str]]) -> None:
    groups = Groups()
    reach: dict[str, set[str]] = {}
    for names in sets:
        groups.join(names)
        merged = set(names).union(*(reach.get(name, set()) for name in names))
        for name in merged:
            reach[name] = merged
    for name, others in reach.items():
        assert groups.find(name) == min(others)


def test_parts_are_about_as_asked_and_a_seed_changes_them() -> None:
    names = [f"s:message {number}" for number in range(5000)]
    count = Counter(assign(name, SplitSettings(validation=0.05, test=0.15, seed=7)) for name in names)
    assert set(count) == set(SPLITS)
    assert 0.13 < count["test"] / 5000 < 0.17
    assert 0.04 < count["validation"] / 5000 < 0.06
    assert [assign(name, SplitSettings(seed=1)) for name in names] != [
        assign(name, SplitSettings(seed=2)) for name in names
    ]


def test_no_part_gets_nothing() -> None:
    assert {assign(f"s:{number}", SplitSettings(validation=0, test=0)) for number in range(500)} == {"train"}


@given(st.text())
def test_key_is_stable(value: str) -> None:
    assert text.key(text.clean(value)) == text.key(value)
    assert text.key(value.join(("  “", "!”\n"))) == text.key(value)


def test_placeholders_are_found() -> None:
    found = [
        "Hi %(name)s", "%s left", "%d %%", "{} of {total}", "${title}", "$who", "<b>bold</b>", "a&nbsp;b", "&File",
        "Save &As", "E&xit", "_Open", "%(n).2f m", "{% if x %}",
    ]  # fmt: skip
    assert [value for value in found if not text.placeholders(value)] == []
    plain = [
        "100 % sure",
        "50%",
        "a < b",
        "Tom & Anna",
        "AT&T",
        "R&D and Q&A",
        "snake_case",
        "costs 5 $",
        "10% de desconto",
    ]
    assert [value for value in plain if text.placeholders(value)] == []


def test_odd_length() -> None:
    assert not text.odd_length(
        "The file could not be saved, since there is no space left on the disk. " * 3,
        "磁盘空间不足，无法保存文件。" * 5,
    )
    assert text.odd_length("Short", "磁盘空间不足，无法保存文件。" * 5)
    assert text.has_words("是")
    assert text.has_words("OK")
    assert not text.has_words("2 × …")
    assert not text.has_words("x")
    assert not text.odd_length("OK", "Está bem, aceito")
    assert text.odd_length("A short sentence here.", "x " * 120)


SENTENCE = "Is the ßtraße near Lisbon long"


@pytest.mark.parametrize(
    "same", [f"{SENTENCE}?", f"  {SENTENCE}.", SENTENCE.upper(), SENTENCE.replace(" ", "\n"), f"{SENTENCE}?!"]
)
def test_wording_is_that_of_other_spellings(same: str) -> None:
    assert text.wording(same) == text.wording(SENTENCE)


@pytest.mark.parametrize(
    ("one", "other"),
    [("n!", "n"), ("5! = 120", "5 = 120"), ("code of A", "code of a"), ("a<b", "a>b"), ("C++", "C"), ("f(x)", "f x")],
)
def test_wording_keeps_what_has_a_meaning(one: str, other: str) -> None:
    assert text.wording(one) != text.wording(other)
    assert text.wording(f"what of {one}, then") != text.wording(f"what of {other}, then")
