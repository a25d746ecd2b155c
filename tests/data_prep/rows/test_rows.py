"""Instructions and preferences in the forms that people have."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.common.errors import DataError, SettingsError
from data_prep.rows import lengths
from data_prep.rows.recipe import NAMED, RowRecipe
from tests.support.prepared import document, make, write_lines, write_tokenizer

ALL = {"validation": 0, "test": 0}
TURNS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]


def rows(output: Path, split: str = "train") -> list[dict[str, str]]:
    return [json.loads(line) for line in (output / f"{split}.jsonl").read_text().splitlines()]


def card(output: Path) -> dict:
    found = json.loads((output / "card.json").read_text())
    assert found["read"] == sum(found["rows"].values()) + sum(found["dropped"].values())
    return found


def test_forms_are_recognised_and_the_template_of_the_guide_is_applied(tmp_path: Path) -> None:
    given = [
        {"input": "a?", "output": "A {input}"},
        {"prompt": "b?", "completion": "B"},
        {"instruction": "c", "input": "d", "output": "C"},
        {"messages": TURNS[:2]},
        {"conversations": [{"from": "human", "value": "e"}, {"from": "gpt", "value": "E"}]},
    ]
    make(
        "instructions",
        [write_lines(tmp_path / "in.jsonl", given)],
        tmp_path / "out",
        split=ALL,
        template="llama-3.2",
        also=["nemo"],
    )
    found = {row["completion"]: row["prompt"] for row in rows(tmp_path / "out")}
    assert set(found) == {"A {input}", "B", "C", "two", "E"}
    assert found["C"] == "c\n\nd"
    assert json.loads((tmp_path / "out/encoding.json").read_text())["text_template"] == NAMED["llama-3.2"]
    assert sum(card(tmp_path / "out")["forms"].values()) == 5
    nemo = [json.loads(line) for line in (tmp_path / "out/nemo/training.jsonl").read_text().splitlines()]
    assert {row["output"] for row in nemo} == set(found)
    prompt = next(row["input"] for row in nemo if row["output"] == "C")
    assert prompt.startswith("<|begin_of_text|><|start_header_id|>system")
    assert prompt.endswith("c\n\nd\nAnswer: <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


def test_chat_template_of_the_model_and_an_answer_a_row(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    config = {"eos_token": "</s>", "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    source = write_lines(tmp_path / "in.jsonl", [{"messages": TURNS}])
    make(
        "instructions",
        [source],
        tmp_path / "out",
        split=ALL,
        template="model",
        tokenizer=str(tokenizer),
        answers="each",
        pack=64,
        also=["nemo"],
    )
    assert sorted((row["messages"] for row in rows(tmp_path / "out")), key=len) == [
        TURNS[:2],
        [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]],
    ]
    nemo = [json.loads(line) for line in (tmp_path / "out/nemo/training.jsonl").read_text().splitlines()]
    assert {(row["input"], row["output"]) for row in nemo} == {
        ("[user]one</s>[assistant]", "two</s>"),
        ("[user]one</s>[assistant]two</s>[user]three</s>[assistant]", "four</s>"),
    }
    packed = json.loads((tmp_path / "out/packed/train.jsonl").read_text().splitlines()[0])
    assert len(packed["input_ids"]) == len(packed["loss_mask"])
    assert 0 < sum(packed["loss_mask"]) < len(packed["loss_mask"])


def test_too_many_long_rows_are_refused_and_few_are_counted(tmp_path: Path) -> None:
    tokenizer = str(write_tokenizer(tmp_path / "tokenizer"))
    given = [{"input": f"q{n}", "output": document(n, 10 if n else 300)} for n in range(40)]
    source = write_lines(tmp_path / "in.jsonl", given)
    make("instructions", [source], tmp_path / "out", split=ALL, tokenizer=tokenizer, max_tokens=200)
    assert card(tmp_path / "out")["dropped"] == {"over_length": 1}
    with pytest.raises(DataError, match=r"1 of 40 rows \(2\.5%\) have more than 200 tokens"):
        make(
            "instructions",
            [source],
            tmp_path / "no",
            split=ALL,
            tokenizer=tokenizer,
            max_tokens=200,
            max_over_length=0.01,
        )


def test_splits_are_group_safe_and_stratified(tmp_path: Path) -> None:
    given = [
        {"input": f"q{n}", "output": f"a{n}", "who": f"author{n // 4}", "what": "xy"[n // 4 % 2]} for n in range(400)
    ]
    source = write_lines(tmp_path / "in.jsonl", given)
    make(
        "instructions",
        [source],
        tmp_path / "out",
        split={"validation": 0.1, "test": 0.2},
        group_by="who",
        stratify_by="what",
    )
    at = {row["prompt"]: split for split in ("train", "validation", "test") for row in rows(tmp_path / "out", split)}
    assert len(at) == 400
    for n in range(0, 400, 4):
        assert len({at[f"q{k}"] for k in range(n, n + 4)}) == 1
    for what in "xy":
        assert sum(at[row["input"]] == "test" for row in given if row["what"] == what) == 40


def test_pairs_are_checked(tmp_path: Path) -> None:
    given = [
        {"prompt": "p1", "chosen": "yes", "rejected": "yes\n"},
        {"prompt": "p2", "chosen": "left", "rejected": "right"},
        {"prompt": "p2", "chosen": "right", "rejected": "left"},
        {"prompt": "p3", "chosen": "o ônibus", "rejected": "o autocarro"},
        {"prompt": "p4", "chosen": "good answer", "rejected": "bad"},
        {"prompt": "p4", "chosen": "good answer", "rejected": "bad"},
        {"prompt": "from the test set", "chosen": "x y", "rejected": "z"},
        {"chosen": TURNS, "rejected": [*TURNS[:3], {"role": "assistant", "content": "five"}]},
    ]
    source = write_lines(tmp_path / "in.jsonl", given[:-1])
    tests = write_lines(tmp_path / "test.jsonl", [{"prompt": "From the test set.", "completion": "x"}])
    make(
        "preferences",
        [source],
        tmp_path / "out",
        split=ALL,
        chosen_never=["ônibus"],
        swapped="swap",
        evaluation=[str(tests)],
        also=["nemo-rl-0.3", "nemo-rl-preference"],
    )
    facts = card(tmp_path / "out")
    assert facts["dropped"] == {"no_difference": 1, "contradiction": 2, "duplicate": 1, "in_evaluation": 1}
    assert {row["chosen"] for row in rows(tmp_path / "out")} == {"o autocarro", "good answer"}
    old = json.loads((tmp_path / "out/nemo-rl-0.3/train.jsonl").read_text().splitlines()[0])
    assert set(old) == {"prompt", "chosen_response", "rejected_response"}
    ranked = json.loads((tmp_path / "out/nemo-rl-preference/train.jsonl").read_text().splitlines()[0])
    assert [entry["rank"] for entry in ranked["completions"]] == [0, 1]
    with pytest.raises(DataError, match=r"last\.jsonl:1: several turns"):
        make(
            "preferences",
            [write_lines(tmp_path / "last.jsonl", given[-1:])],
            tmp_path / "turns",
            split=ALL,
            template="llama-3.2",
        )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input": None, "output": "x"}, 'field "input" is null'),
        ({"question": "x"}, "has no form of instructions"),
        ({"messages": [{"role": "user", "content": "x"}]}, "does not end with an answer"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "has the role 'robot'"),
    ],
)
def test_rows_without_a_form_have_a_place(tmp_path: Path, row: dict, says: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"input": "a", "output": "b"}, row])
    with pytest.raises(DataError, match=r"in\.jsonl:2: ") as failure:
        make("instructions", [source], tmp_path / "out", split=ALL)
    assert says in str(failure.value)


def test_packs_are_full_and_whole() -> None:
    sizes = [5, 9, 3, 3, 7, 1, 12]
    packs = lengths.pack(sizes, 10)
    assert sorted(number for numbers in packs for number in numbers) == list(range(7))
    assert all(sum(sizes[n] for n in numbers) <= 10 for numbers in packs if len(numbers) > 1)
    assert len(packs) == 4


def test_a_conversation_is_in_one_split(tmp_path: Path) -> None:
    given = [
        {
            "messages": [
                {"role": role, "content": f"{role} {n} {at}"} for at in range(3) for role in ("user", "assistant")
            ]
        }
        for n in range(60)
    ]
    source = write_lines(tmp_path / "in.jsonl", given)
    make("instructions", [source], tmp_path / "out", split={"validation": 0.2, "test": 0.3}, answers="each")
    where: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for row in rows(tmp_path / "out", split):
            where.setdefault(row["messages"][0]["content"], set()).add(split)  # type: ignore[index]
    assert len(where) == 60
    assert all(len(splits) == 1 for splits in where.values())
    assert set().union(*where.values()) == {"train", "validation", "test"}


def test_preferences_of_conversations_keep_their_messages_in_every_form(tmp_path: Path) -> None:
    """NeMo-RL's form of messages is rendered by the program that reads it, so it must not be rendered here."""
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    config = {"eos_token": "</s>", "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    other = [*TURNS[:3], {"role": "assistant", "content": "five"}]
    source = write_lines(tmp_path / "in.jsonl", [{"chosen": TURNS, "rejected": other}])
    forms = ["nemo-rl-preference", "nemo-rl", "trl-pairs"]
    make("preferences", [source], tmp_path / "out", split=ALL, template="model", tokenizer=str(tokenizer), also=forms)
    made = {form: json.loads((tmp_path / "out" / form / "train.jsonl").read_text()) for form in forms}
    assert made["nemo-rl-preference"] == {
        "context": TURNS[:3],
        "completions": [{"rank": 0, "completion": TURNS[3:]}, {"rank": 1, "completion": other[3:]}],
    }
    assert made["trl-pairs"] == {"prompt": TURNS[:3], "chosen": TURNS[3:], "rejected": other[3:]}
    assert made["nemo-rl"] == {
        "prompt": "[user]one</s>[assistant]two</s>[user]three</s>[assistant]",
        "chosen": "four</s>",
        "rejected": "five</s>",
    }


def test_the_day_that_templates_see_is_a_setting_and_never_the_day_of_the_job(tmp_path: Path) -> None:
    """Two nights make the same files; another day is another setting, and the card tells it."""
    from transformers.utils import chat_template_utils

    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = (
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    config = {"eos_token": "</s>", "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    source = write_lines(tmp_path / "in.jsonl", [{"messages": TURNS}])
    packed = {}
    for name, night, more in (
        ("one", "2026-01-01", {}), ("two", "2026-01-02", {}), ("set", "2026-01-01", {"template_date": "2025-12-24"}),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chat_template_utils, "datetime", _Night(night))
            make("instructions", [source], tmp_path / name, split=ALL, tokenizer=str(tokenizer), pack=100, **more)
        packed[name] = (tmp_path / name / "packed/train.jsonl").read_bytes()
        told = card(tmp_path / name)["checks"]["today in the chat template (template_date)"]
        assert told == more.get("template_date", "2024-07-26")
        assert json.loads((tmp_path / name / "encoding.json").read_text())["date"] == told
        assert told in (tmp_path / name / "card.html").read_text()
    assert packed["one"] == packed["two"] != packed["set"]
    for bad in ("tomorrow", "2025-13-01", "20251224", 3):
        with pytest.raises(DataError, match="template_date: must be a day such as 2024-07-26"):
            make("instructions", [source], tmp_path / f"bad {bad}", split=ALL, template_date=bad)


class _Night:
    """``datetime`` on one night."""

    def __init__(self, day: str) -> None:
        self._day = datetime.fromisoformat(day)

    def now(self) -> datetime:
        return self._day


def test_columns_are_read_under_our_names(tmp_path: Path) -> None:
    table = tmp_path / "faq.csv"
    table.write_text("No.;Customer question;Approved answer\n1;How?;So.\n2;Why?;Because.\n", encoding="utf-8")
    columns = {"prompt": "Customer question", "completion": "Approved answer"}
    make("instructions", [table], tmp_path / "out", split=ALL, columns=columns, ignore=["No."])
    assert {row["prompt"]: row["completion"] for row in rows(tmp_path / "out")} == {"How?": "So.", "Why?": "Because."}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["Question"], "must be a mapping"),
        ({"promt": "Question"}, "must name prompt, completion, .*, not 'promt'"),
        ({"prompt": "Text", "completion": "Text"}, "must name each field once"),
    ],
)
def test_columns_that_say_nothing_are_refused(columns: object, says: str) -> None:
    with pytest.raises(SettingsError, match=f"setting prepare.columns: {says}"):
        RowRecipe.parse("instructions", {"columns": columns})
