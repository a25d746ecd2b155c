"""What each filter of rows must keep, and what it must drop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.common import text
from data_prep.rows import pairs
from tests.support.prepared import contradictions, make, write_lines

ALL = {"validation": 0, "test": 0}
DIFFERENT = [
    ("x = -5", "x = 5"),
    ("a<b", "a>b"),
    ("a < b", "a > b"),
    ("2 + 2", "2 - 2"),
    ("C++", "C"),
    ("print('hi')", "print(hi)"),
    ("😀", "😢"),
    ("good 😀", "good"),
    ("yes", "Yes"),
    ("yes", "yes!"),
    ("x²", "x2"),
    ("n!", "n"),
    ("if x:\n    f()\ng()", "if x:\n    f()\n    g()"),
    ("1,000", "1.000"),
    ("a_b", "a b"),
]
SAME = [("yes", " yes\n"), ("a\nb", "a\r\nb"), ("caf\u00e9", "cafe\u0301")]


def dropped(output: Path) -> dict[str, int]:
    found = json.loads((output / "card.json").read_text())
    assert found["read"] == found["kept"] + sum(found["dropped"].values())
    return dict(found["dropped"])


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_a_pair_that_differs_at_all_is_a_pair(tmp_path: Path, one: str, other: str) -> None:
    assert not pairs.same(one, other)
    rows = [{"prompt": "q1", "chosen": one, "rejected": other}, {"prompt": "q2", "chosen": other, "rejected": one}]
    make("preferences", [write_lines(tmp_path / "in.jsonl", rows)], tmp_path / "out", split=ALL)
    assert dropped(tmp_path / "out") == {}


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_pair_without_a_difference_is_dropped(tmp_path: Path, one: str, other: str) -> None:
    rows = [{"prompt": "q1", "chosen": one, "rejected": other}, {"prompt": "q2", "chosen": "a", "rejected": "b"}]
    make("preferences", [write_lines(tmp_path / "in.jsonl", rows)], tmp_path / "out", split=ALL)
    assert dropped(tmp_path / "out") == {"no_difference": 1}


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_opposite_choices_for_different_prompts_do_not_contradict(one: str, other: str) -> None:
    found = contradictions([(f"{one} = ?", "4", "0"), (f"{other} = ?", "0", "4"), (f"{one} = ?", "4", "0")])
    assert found == set()
    assert contradictions([("q", one, other), ("q", other, one), ("r", one, other)]) == {0, 1}
    assert contradictions([("q", one, "x"), ("q", "x", other)]) == set()


def _chat(before: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    return {
        name: [*before, {"role": "assistant", "content": answer}]
        for name, answer in (("chosen", chosen), ("rejected", rejected))
    }


def test_opposite_choices_after_other_messages_do_not_contradict(tmp_path: Path) -> None:
    from tests.support.prepared import write_tokenizer

    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    ask = {"role": "user", "content": "Write a greeting."}
    short, long = ({"role": "system", "content": f"Be {how}."} for how in ("brief", "wordy"))
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    other = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go away"}]
    rows = [
        _chat([short, ask], "Hi", "Good morning to you"),
        _chat([long, ask], "Good morning to you", "Hi"),
        _chat([*turns, ask], "Hi", "Good morning to you"),
        _chat([*other, ask], "Good morning to you", "Hi"),
        _chat([ask], "one", "two"),
        _chat([ask], "two", "one"),
    ]
    source = write_lines(tmp_path / "in.jsonl", rows)
    make("preferences", [source], tmp_path / "out", split=ALL, template="model", tokenizer=str(tokenizer))
    assert dropped(tmp_path / "out") == {"contradiction": 2}


@pytest.mark.parametrize(
    ("asked", "tested"),
    [
        ("Compute 12 + 30 + 4", "Compute 12 * 30 * 4"),
        ("Compute 12 - 30", "Compute 12 + 30"),
        ("Compute -12 times 30", "Compute 12 times 30"),
        ("What is the code of A?", "What is the code of a?"),
        ("Is a < b for these?", "Is a > b for these?"),
        ("Explain C++ to me", "Explain C to me"),
        ("What does print('hi') do", "What does print(hi) do"),
        ("What is 5! in numbers", "What is 5 in numbers"),
        ("Which mood is 😀 here?", "Which mood is 😢 here?"),
    ],
)
def test_another_question_than_that_of_a_test_set_is_kept(tmp_path: Path, asked: str, tested: str) -> None:
    tests = write_lines(tmp_path / "test.jsonl", [{"question": tested, "answer": "x"}])
    rows = [{"prompt": asked, "completion": "y"}, {"prompt": "other", "completion": "z"}]
    source = write_lines(tmp_path / "in.jsonl", rows)
    make("instructions", [source], tmp_path / "out", split=ALL, evaluation=[str(tests)])
    assert dropped(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "asked",
    [
        "Which river flows through Lisbon?",
        "which river flows through lisbon",
        "  Which river\nflows through Lisbon ?",
        "WHICH RIVER FLOWS THROUGH LISBON?!",
    ],
)
def test_the_question_of_a_test_set_is_found_in_any_turn_of_the_user(tmp_path: Path, asked: str) -> None:
    tests = write_lines(tmp_path / "test.jsonl", [{"question": "Which river flows through Lisbon?", "answer": "Tejo"}])
    answer = {"role": "assistant", "content": "Let me think."}
    talk = [{"role": "user", "content": "Hello there"}, answer, {"role": "user", "content": asked}, answer]
    rows = [
        {"messages": [*talk, {"role": "user", "content": "And in Porto?"}, answer]},
        {"messages": talk},
        {"messages": talk[2:]},
        {"messages": [talk[0], answer]},
    ]
    from tests.support.prepared import write_tokenizer

    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    source = write_lines(tmp_path / "in.jsonl", rows)
    given: dict[str, Any] = {"template": "model", "tokenizer": str(tokenizer), "evaluation": [str(tests)]}
    make("instructions", [source], tmp_path / "out", split=ALL, **given)
    assert dropped(tmp_path / "out") == {"in_evaluation": 3}


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_that_differ_have_no_common_exact_form(one: str, other: str) -> None:
    assert text.exact(one) != text.exact(other)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_texts_that_are_the_same_have_one_exact_form(one: str, other: str) -> None:
    assert text.exact(one) == text.exact(other)


def test_a_question_in_two_fields_is_found(tmp_path: Path) -> None:
    row = {"instruction": "Translate into German.", "input": "The boat comes home.", "output": "Das Boot kommt heim."}
    tests = write_lines(tmp_path / "test.jsonl", [row])
    given = [row, {**row, "input": "The boat stays out."}]
    source = write_lines(tmp_path / "in.jsonl", given)
    make("instructions", [source], tmp_path / "out", split=ALL, evaluation=[str(tests)])
    assert dropped(tmp_path / "out") == {"in_evaluation": 1}


def test_a_test_set_may_be_any_file_or_a_data_set_of_the_hub(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    asked = [f"Which number comes after {n}, my friend?" for n in range(6)]
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "README.md").write_text("---\nconfigs:\n- {config_name: a, data_files: x}\n---\nabout it\n")
    (hub / "LICENSE").write_text("free")
    (hub / "dataset_infos.json").write_text('{"a": "this is about it"}')
    pyarrow.parquet.write_table(pa.table({"question": asked[:1]}), hub / "test-00000-of-00001.parquet")
    (hub / "train.json").write_text(json.dumps([{"q": [asked[1]]}], indent=1))
    (tmp_path / "a.csv").write_text(f'id,question\n1,"{asked[2]}"\n')
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": one, "completion": "x"} for one in asked])
    tests = [str(hub), str(tmp_path / "a.csv")]
    make("instructions", [source], tmp_path / "out", split=ALL, evaluation=tests, compare_with=tests)
    assert dropped(tmp_path / "out") == {"in_evaluation": 3}
    facts = json.loads((tmp_path / "out/card.json").read_text())
    assert facts["checks"]["prompts shared with compare_with"] == 3
