"""The forms in which people keep rows: what is used of each field, what is carried along, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.card.account import Account
from data_prep.rows import drafts, pairs
from data_prep.rows.messages import Unfit
from data_prep.rows.recipe import RowRecipe
from tests.support.prepared import contradictions


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


S, U, A = message("system", "Short."), message("user", "Hi"), message("assistant", "Hello")
U2, A2, A3 = message("user", "Capital?"), message("assistant", "Paris"), message("assistant", "London")
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lisbon"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def made(row: dict[str, Any], kind: str = "instructions", **settings: Any) -> list[dict[str, Any]]:
    recipe = RowRecipe.parse(kind, settings)
    return [draft.row for draft in drafts.of_row("f:1", row, recipe, Account())]


NAN = float("nan")
"""What pandas writes for null."""
INSTRUCTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "messages": ({"messages": [S, U, A, U2, A2]}, {"messages": [S, U, A, U2, A2]}),
    "weights": ({"messages": [U, {**A, "weight": 0}, U2, A2]}, {"messages": [U, {**A, "weight": 0}, U2, A2]}),
    "a weight of 1 and null fields": (
        {"messages": [{**U, "tool_calls": None}, {**A, "weight": 1, "name": None}], "tools": None},
        {"messages": [U, {**A, "weight": 1}]},
    ),
    "tool calls": (
        {"messages": [U, message("assistant", None, tool_calls=[CALL]), message("tool", "21", tool_call_id="1"), A], "tools": TOOLS},
        {"messages": [U, message("assistant", None, tool_calls=[CALL]), message("tool", "21", tool_call_id="1"), A], "tools": TOOLS},
    ),
    "developer, reasoning": (
        {"messages": [message("developer", "x"), U, {**A, "reasoning_content": "so"}]},
        {"messages": [message("developer", "x"), U, {**A, "reasoning_content": "so"}]},
    ),
    "parts": (
        {"messages": [message("user", [{"type": "text", "text": "Hi", "image_url": None}]), A]},
        {"messages": [message("user", [{"type": "text", "text": "Hi"}]), A]},
    ),
    "system beside messages": ({"system": "Short.", "messages": [U, A]}, {"messages": [S, U, A]}),
    "UltraChat": ({"prompt": "Hi", "prompt_id": "p", "messages": [U, A]}, {"messages": [U, A]}),
    "options of the template": (
        {"messages": [U, A], "chat_template_kwargs": {"enable_thinking": False}},
        {"messages": [U, A], "chat_template_kwargs": {"enable_thinking": False}},
    ),
    "sharegpt": (
        {
            "system": "Short.",
            "tools": '[{"name": "weather"}]',
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Lisbon"}}'},
                {"from": "observation", "value": "21"},
                {"from": "gpt", "value": "Hello", "weight": 1},
            ],
        },
        {
            "messages": [
                S,
                U,
                message("assistant", None, tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": {"city": "Lisbon"}}}]),
                message("tool", "21"),
                {**A, "weight": 1},
            ],
            "tools": [{"name": "weather"}],
        },
    ),
    "alpaca": ({"instruction": "Hi", "input": "", "output": "Hello"}, {"prompt": "Hi", "completion": "Hello"}),
    "alpaca with input": (
        {"instruction": "Translate.", "input": "yes", "output": "ja"},
        {"prompt": "Translate.\n\nyes", "completion": "ja"},
    ),
    "alpaca with system and history": (
        {"instruction": "Capital?", "output": "Paris", "system": "Short.", "history": [["Hi", "Hello"]]},
        {"messages": [S, U, A, U2, A2]},
    ),
    "Dolly": (
        {"instruction": "Translate.", "context": "yes", "response": "ja", "category": "qa"},
        {"prompt": "Translate.\n\nyes", "completion": "ja"},
    ),
    "GSM8K": ({"question": "Hi", "answer": "Hello"}, {"prompt": "Hi", "completion": "Hello"}),
    "MetaMath": ({"query": "Hi", "response": "Hello"}, {"prompt": "Hi", "completion": "Hello"}),
    "OpenAI's older words for calls": (
        {
            "messages": [U, message("assistant", None, function_call=CALL["function"]), message("function", "21", name="weather"), A],
            "functions": [TOOLS[0]["function"]],
        },
        {
            "messages": [
                U,
                message("assistant", None, tool_calls=[{"type": "function", "function": CALL["function"]}]),
                message("tool", "21", name="weather"),
                A,
            ],
            "tools": TOOLS,
        },
    ),
    "texts": ({"prompt": "Hi", "completion": "Hello"}, {"prompt": "Hi", "completion": "Hello"}),
    "texts with a system": ({"system": "Short.", "prompt": "Hi", "completion": "Hello"}, {"messages": [S, U, A]}),
    "TRL's lists": ({"prompt": [S, U], "completion": [A]}, {"messages": [S, U, A]}),
    "OpenOrca": ({"id": "1", "system_prompt": "Short.", "question": "Hi", "response": "Hello"}, {"messages": [S, U, A]}),
    "the guide's": ({"input": "Hi", "output": "Hello"}, {"prompt": "Hi", "completion": "Hello"}),
    "the columns of several forms": (
        {"messages": None, "instruction": "", "prompt": "Hi", "completion": "Hello", "chosen": None, "rejected": None},
        {"prompt": "Hi", "completion": "Hello"},
    ),
    "a table of pandas": (
        {"messages": [U, A], "prompt": NAN, "completion": NAN, "tools": NAN, "system": NAN, "label": NAN},
        {"messages": [U, A]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_field_of_instructions_is_used(name: str) -> None:
    row, wanted = INSTRUCTIONS[name]
    assert made(row) == [wanted]


def transcript(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[at % 2]}: {turn}" for at, turn in enumerate(turns))


PREFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "texts": (
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
    ),
    "texts with a system": (
        {"system": "Short.", "prompt": "Hi", "chosen": "Paris", "rejected": "London"},
        {"prompt": [S, U], "chosen": [A2], "rejected": [A3]},
    ),
    "UltraFeedback": (
        {
            "prompt": "Hi", "prompt_id": "1", "messages": [S, U, A, U2, A2], "chosen": [S, U, A, U2, A2],
            "rejected": [S, U, A, U2, A3], "score_chosen": 8.0, "score_rejected": 3.5,
        },
        {"prompt": [S, U, A, U2], "chosen": [A2], "rejected": [A3]},
    ),
    "without a prompt": (
        {"chosen": [U, A, U2, A2], "rejected": [U, A, U2, A3]},
        {"prompt": [U, A, U2], "chosen": [A2], "rejected": [A3]},
    ),
    "TRL's lists": (
        {"prompt": [S, U], "chosen": [A2], "rejected": [A3]},
        {"prompt": [S, U], "chosen": [A2], "rejected": [A3]},
    ),
    "a prompt and answers of several turns": (
        {"prompt": [U], "chosen": [A, U2, A2], "rejected": [A, U2, A3]},
        {"prompt": [U, A, U2], "chosen": [A2], "rejected": [A3]},
    ),
    "an answer with a call": (
        {"prompt": [U], "chosen": [message("assistant", None, tool_calls=[CALL]), message("tool", "21"), A2], "rejected": [A3], "tools": TOOLS},
        {"prompt": [U], "chosen": [message("assistant", None, tool_calls=[CALL]), message("tool", "21"), A2], "rejected": [A3], "tools": TOOLS},
    ),
    "HH-RLHF": (
        {"chosen": transcript("Hi", "Hello", "Capital?", "Paris"), "rejected": transcript("Hi", "Hello", "Capital?", "London")},
        {"prompt": [U, A, U2], "chosen": [A2], "rejected": [A3]},
    ),
    "HH-RLHF beside its prompt": (
        {
            "prompt": transcript("Hi", "Hello", "Capital?", ""),
            "chosen": transcript("Hi", "Hello", "Capital?", "Paris"),
            "rejected": transcript("Hi", "Hello", "Capital?", "London"),
        },
        {"prompt": [U, A, U2], "chosen": [A2], "rejected": [A3]},
    ),
    "Orca": (
        {"system": "Short.", "question": "Hi", "chosen": "Paris", "rejected": "London"},
        {"prompt": [S, U], "chosen": [A2], "rejected": [A3]},
    ),
    "Alpaca with two answers": (
        {"instruction": "Capital?", "input": "France", "chosen": "Paris", "rejected": "London"},
        {"prompt": "Capital?\n\nFrance", "chosen": "Paris", "rejected": "London"},
    ),
    "Nectar": (
        {
            "prompt": transcript("Hi", ""), "turns": 1, "num_responses": 3, "source": ["x"], "good_natured": True,
            "answers": [{"answer": "London", "rank": 3.0, "model": "m"}, {"answer": "Paris", "rank": 1.0}, {"answer": "Rome", "rank": 2.0}],
        },
        {"prompt": [U], "chosen": [A2], "rejected": [A3]},
    ),
    "LLaMA-Factory": (
        {
            "conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Paris"},
            "rejected": {"from": "gpt", "value": "London"},
        },
        {"prompt": [U], "chosen": [A2], "rejected": [A3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_field_of_preferences_is_used(name: str) -> None:
    row, wanted = PREFERENCES[name]
    assert made(row, "preferences") == [wanted]


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("instructions", {"messages": [U, A], "score": 3}, "unknown_field", r'"score".*ignore: \[score\].*carry: \[score\]'),
    ("instructions", {"messages": [{**U, "mood": "x"}, A]}, "unknown_field", r'messages\[0\].*"mood".*ignore: \[mood\]'),
    ("instructions", {"prompt": "a", "completion": "b", "label": False}, "unpaired_preference", "KTO"),
    ("instructions", {"prompt": "a", "completion": "b", "label": True}, "unpaired_preference", "KTO"),
    ("instructions", {"prompt": "a", "completion": "b", "label": "false"}, "unpaired_preference", "KTO"),
    ("instructions", {"prompt": "a", "completion": NAN}, "null_field", '"completion" is null'),
    ("instructions", {"messages": [U, A], "tools": [{"type": "function", "function": None}]}, "not_tools", "no name"),
    (
        "instructions",
        {"conversations": [{"from": "human", "value": "x", "role": "user", "content": "y"}, A]},
        "two_forms",
        r'conversations\[0\] has both "role" and "from"',
    ),
    ("preferences", {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1}, "unknown_field", "score_chosen"),
    ("preferences", {"prompt": [U], "chosen": [{**A, "weight": 0}], "rejected": [A2]}, "nothing_to_learn", "weight 0"),
    (
        "preferences",
        {"prompt": "a", "answers": [{"answer": "b", "rank": 1, "toxic": 1}, {"answer": "c", "rank": 2}]},
        "unknown_field",
        r'answers\[0\] has the field "toxic".*ignore: \[toxic\]',
    ),
    ("preferences", {"prompt": "a", "completion": "b", "label": True}, "unpaired_preference", "KTO"),
    ("instructions", {"prompt": "a", "chosen": "b", "rejected": "c"}, "unknown_form", "kind preferences"),
    ("instructions", {"system": "x", "messages": [S, U, A]}, "two_systems", r"ignore: \[system\]"),
    ("instructions", {"prompt": "other", "messages": [U, A]}, "two_prompts", r"ignore: \[prompt\]"),
    ("instructions", {"messages": [U, A, message("tool", "x")]}, "no_answer", "message of tool"),
    ("instructions", {"messages": [U, A, A2]}, "wrong_roles", "assistant follows one of assistant"),
    ("instructions", {"messages": [U, U2, A]}, "wrong_roles", "user follows one of user"),
    ("instructions", {"messages": [A]}, "wrong_roles", "out of order"),
    ("instructions", {"messages": [U, message("assistant", None)]}, "null_field", r"messages\[1\] has no content"),
    ("instructions", {"messages": [message("user", [{"type": "image_url"}]), A]}, "not_text", "image_url"),
    ("instructions", {"messages": [U, {**A, "weight": 0}]}, "nothing_to_learn", "weight 0"),
    ("instructions", {"messages": [U, {**A, "weight": 0.5}]}, "wrong_weight", "0 or 1"),
    ("instructions", {"messages": [{**U, "reasoning_content": "x"}, A]}, "wrong_roles", "reasoning_content"),
    ("instructions", {"messages": [U, message("critic", "x"), A]}, "wrong_roles", "'critic'"),
    ("instructions", {"messages": [U, message("function", "x"), A]}, "wrong_roles", "tool follows one of user"),
    ("instructions", {"messages": [U, {**A, "train": False}]}, "unknown_field", r'"weight": 0 keeps.*ignore: \[train\]'),
    ("instructions", {"messages": [U, A], "Unnamed: 0": 3}, "unknown_field", r'ignore: \["Unnamed: 0"\]'),
    (
        "instructions",
        {"messages": [U, message("assistant", None, tool_calls=[CALL]), message("tool", "x", tool_call_id="7"), A]},
        "unknown_call",
        "message 3 is the result of a call with the id '7'",
    ),
    (
        "instructions",
        {"messages": [U, message("assistant", None, tool_calls=[CALL], function_call=CALL["function"])]},
        "two_forms",
        'both "function_call" and "tool_calls"',
    ),
    ("instructions", {"instruction": "a", "input": "b", "context": "c", "output": "d"}, "unknown_field", '"context"'),
    ("instructions", {"messages": "[]"}, "not_messages", "JSON in a text"),
    ("instructions", {"messages": [U, {**A, "tool_calls": [{"x": 1}]}]}, "not_a_call", r"tool_calls\[0\]"),
    ("preferences", {"chosen": [U, A], "rejected": [U2, A2]}, "different_prompts", "same conversation"),
    ("preferences", {"chosen": "a", "rejected": "b"}, "unknown_form", 'no "prompt"'),
    ("preferences", {"prompt": "other", "chosen": [U, A], "rejected": [U, A2]}, "two_prompts", r"ignore: \[prompt\]"),
    (
        "preferences",
        {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1, "score_rejected": 2},
        "scores_the_wrong_way",
        "1 is less than",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "row", "reason", "says"), REFUSED)
def test_what_is_not_used_is_refused_with_what_to_write(kind: str, row: dict[str, Any], reason: str, says: str) -> None:
    with pytest.raises(Unfit, match=says) as failure:
        made(row, kind)
    assert failure.value.reason == reason


def test_ignored_fields_are_counted_on_the_card() -> None:
    row = {"id": 7, "source": "web", "mood": "x", "score": 3, "messages": [{**U, "mood": "y"}, A]}
    account = Account()
    recipe = RowRecipe.parse("instructions", {"ignore": ["mood"], "carry": ["score"]})
    (draft,) = drafts.of_row("f:1", row, recipe, account)
    assert draft.row == {"messages": [U, A]}
    assert draft.meta == {"id": 7, "source": "web", "score": 3}
    assert account.notes["ignored: mood"] == 2


def test_fields_of_the_two_answers_are_ignored_by_name() -> None:
    row = {
        "conversations": [{"from": "human", "value": "Hi", "mood": "x"}],
        "chosen": {"from": "gpt", "value": "Hello", "mood": "x"},
        "rejected": {"from": "gpt", "value": "Bye", "mood": "y"},
    }
    assert made(row, "preferences", ignore=["mood"]) == [
        {"prompt": [U], "chosen": [A], "rejected": [{"role": "assistant", "content": "Bye"}]}
    ]


def test_answers_all_last_and_each() -> None:
    row = {"messages": [S, U, A, U2, {**A2, "weight": 0}, U, A3]}
    silent = {**A, "weight": 0}
    assert made(row) == [row]
    assert made(row, answers="last") == [{"messages": [S, U, silent, U2, {**A2, "weight": 0}, U, A3]}]
    assert made(row, answers="each") == [
        {"messages": [S, U, A]},
        {"messages": [S, U, silent, U2, {**A2, "weight": 0}, U, A3]},
    ]
    with pytest.raises(Unfit, match="last answer has weight 0"):
        made({"messages": [U, A, U2, {**A2, "weight": 0}]}, answers="last")


def test_texts_become_messages_where_a_template_or_a_system_message_is_asked_for() -> None:
    row = {"prompt": "Hi", "completion": "Hello"}
    assert made(row, template="model") == [{"messages": [U, A]}]
    assert made(row, system="Short.") == [{"messages": [S, U, A]}]
    assert made({"messages": [U, A]}, template="{input}|{output}") == [row]
    with pytest.raises(Unfit, match="no place in a template of one question"):
        made({"messages": [U, A, U2, A2]}, template="{input}|{output}")


def test_reasoning_is_left_out_on_demand() -> None:
    inline = message("assistant", "<think>\nso\n</think>\n\nHello")
    for answer in ({**A, "reasoning_content": "so"}, inline):
        assert made({"messages": [U, answer]}, reasoning="strip") == [{"messages": [U, A]}]
        assert made({"messages": [U, answer]}) == [{"messages": [U, answer]}]
    parts = message("assistant", [{"type": "text", "text": "<think>so</think>"}, {"type": "text", "text": "Hello"}])
    wanted = message("assistant", [{"type": "text", "text": "Hello"}])
    assert made({"messages": [U, parts]}, reasoning="strip") == [{"messages": [U, wanted]}]
    told = message("assistant", "Write <think>so</think> for it.")
    assert made({"messages": [U, told]}, reasoning="strip") == [{"messages": [U, told]}]


def test_equal_scores_say_nothing() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 2, "score_rejected": 2}
    (draft,) = drafts.of_row("f:1", row, RowRecipe.parse("preferences", {}), Account())
    assert draft.skip == "equal_scores"


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("x = -5", "x = 5"), ("a<b", "a>b"), ("C++", "C"), ("Paris", "paris"), ("😀", "😢")]
)
def test_a_sign_a_capital_or_an_emoji_is_a_difference(chosen: str, rejected: str) -> None:
    assert not pairs.same(chosen, rejected)
    assert pairs.same(chosen, f" {chosen}\n")
    assert contradictions([("p", chosen, rejected)]) == set()
    assert contradictions([("p", chosen, rejected), ("p", rejected, chosen)]) == {0, 1}
