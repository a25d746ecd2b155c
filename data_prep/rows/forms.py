"""The forms in which people keep conversations and preferences, recognised by their fields.

docs/data.md has the table of forms and of what becomes of each field. Every field of a row is used, carried along, or
an error that names it; ``ignore`` leaves fields out, ``carry`` takes more along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.common.errors import leaving_out
from data_prep.rows.fields import Fields, is_empty
from data_prep.rows.messages import (
    Unfit,
    check_turns,
    is_transcript,
    message,
    message_list,
    said,
    transcript,
)
from jobs.encoding.messages import Message


@dataclass(frozen=True)
class Example:
    """What a row says: ``before`` the answer, and one answer (instructions) or two (preferences).

    ``texts``: it was given as texts without roles, which no template has to hold. ``skip``: a reason to leave it out.
    """

    form: str
    before: list[Message]
    answers: tuple[list[Message], ...]
    texts: bool = False
    tools: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    skip: str = ""


def instructions(row: Fields) -> Example:
    """The conversation of a row.

    Raises:
        Unfit: no known form, an empty or null text, roles out of order.
    """
    if row.has("label", "completion"):
        raise Unfit(
            "unpaired_preference",
            'has a "label": rows of KTO (prompt, completion, label) say which answers are bad, SFT would learn them '
            "as good: keep the rows whose label is true, and remove the field (or write ignore: [label])",
        )
    if row.has("chosen", "rejected"):
        raise Unfit("unknown_form", 'has "chosen" and "rejected": such rows are for a stage of kind preferences')
    form, found, texts = _conversation(row)
    found = [*_system(row, found), *_history(row), *found]
    check_turns(found)
    if not any(one.get("weight", 1) for one in found if one["role"] == "assistant"):
        raise Unfit("nothing_to_learn", "every answer of the conversation has weight 0")
    return Example(form, found[:-1], (found[-1:],), texts, _tools(row), _options(row))


_INSTRUCTIONS: dict[tuple[str, ...], str] = {
    ("messages",): "messages", ("conversations",): "sharegpt", ("conversation",): "sharegpt",
    ("prompt", "completion"): "prompt", ("prompt", "response"): "prompt", ("question", "response"): "question",
    ("question", "answer"): "question", ("query", "response"): "question", ("instruction", "output"): "alpaca",
    ("instruction", "response"): "dolly", ("input", "output"): "input-output",
}  # fmt: skip
"""Forms of instructions by their fields, in the order in which they are looked for."""


def _conversation(row: Fields) -> tuple[str, list[Message], bool]:
    match row.form(_INSTRUCTIONS):
        case (name,):
            found = message_list(row.take(name), name)
            if "prompt" in row:
                _check_prompt(row, found)
            return _INSTRUCTIONS[(name,)], found, False
        case asked, answer:
            sides = [*_side(row, asked, "user"), *_side(row, answer, "assistant")]
            texts = not any(isinstance(row.take(name), list | tuple) for name in (asked, answer))
            return _INSTRUCTIONS[asked, answer], sides, texts
    raise Unfit(
        "unknown_form",
        'has no form of instructions: {"messages"}, {"conversations"}, {"prompt", "completion"}, '
        f'{{"instruction", "output"}}, {{"question", "answer"}} or {{"input", "output"}}, but {row.names()}',
    )


def _turn(asked: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _side(row: Fields, name: str, role: str) -> list[Message]:
    """The messages of a field; behind an instruction stands what it is about (``input`` of Alpaca, ``context`` of
    Dolly)."""
    value = row.take(name)
    if isinstance(value, list | tuple):
        return message_list(value, name)
    more = next((one for one in ("input", "context") if name == "instruction" and one in row), None)
    texts = [row.text(one) for one in (name, more) if one is not None]
    return [{"role": role, "content": "\n\n".join(texts)}]


def _check_prompt(row: Fields, found: Sequence[Message]) -> None:
    """A prompt beside messages repeats the first question (UltraChat): anything else would be lost."""
    first = next((one for one in found if one["role"] == "user"), None)
    prompt = row.take("prompt")
    if first is None or not isinstance(prompt, str) or prompt.strip() != said(first).strip():
        raise Unfit(
            "two_prompts",
            'field "prompt" is not the first question of the messages: write ignore: [prompt], or put it '
            "into the messages",
        )


def _system(row: Fields, found: Sequence[Message]) -> list[Message]:
    names = [name for name in ("system", "system_prompt") if name in row]
    for name in ("system", "system_prompt"):
        row.take(name)
    if not names:
        return []
    text = row.text(names[0])
    if len(names) > 1 or any(one["role"] in ("system", "developer") for one in found):
        raise Unfit(
            "two_systems",
            f'has a field "{names[0]}" and another system message: write ignore: [{names[0]}], or remove one',
        )
    return [{"role": "system", "content": text}]


def _history(row: Fields) -> list[Message]:
    """The earlier turns of a row of Alpaca's form: pairs of texts."""
    value = row.take("history")
    if is_empty(value):
        return []
    found = []
    for number, turn in enumerate(value if isinstance(value, list | tuple) else [None]):
        if not (
            isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(t, str) and t.strip() for t in turn)
        ):
            raise Unfit("not_messages", f"history[{number}] is not a pair of a question and its answer")
        found += _turn(*turn)
    return found


def _tools(row: Fields) -> list[dict[str, Any]]:
    older = "functions" in row and "tools" not in row  # OpenAI's older word
    value = row.take("functions" if older else "tools")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Unfit("not_tools", f'field "tools" is a text, but not JSON: {error}') from error
    if is_empty(value):
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise Unfit("not_tools", 'field "tools" is not a list of tools')
    for number, tool in enumerate(value):
        function = tool.get("function") or tool
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Unfit("not_tools", f"tools[{number}] has no name")
    return [{"type": "function", "function": dict(tool)} if older else dict(tool) for tool in value]


def _options(row: Fields) -> dict[str, Any]:
    """What a row gives to its chat template (TRL's field)."""
    value = row.take("chat_template_kwargs")
    if is_empty(value):
        return {}
    if not isinstance(value, Mapping):
        raise Unfit("not_options", 'field "chat_template_kwargs" is not an object')
    return {name: one for name, one in value.items() if one is not None}


def preferences(row: Fields) -> Example:
    """The two answers of a row and what comes before them.

    Raises:
        Unfit: no known form, an empty or null text, conversations that differ before the last answers.
    """
    if row.has("label", "completion"):
        raise Unfit(
            "unpaired_preference",
            'has a "label" and one completion (KTO): preferences need "chosen" and "rejected" for the same prompt',
        )
    given = row.form((("chosen", "rejected"), ("prompt", "answers")))
    if "answers" in given:
        return _ranked(row)
    if not given:
        raise Unfit("unknown_form", f'has no fields "chosen" and "rejected", but {row.names()}')
    form, before, answers, texts = _pair(row)
    before = [*_system(row, before), *_history(row), *before]
    for answer in answers:
        check_turns([*before, *answer])
        if not answer[-1].get("weight", 1):
            raise Unfit("nothing_to_learn", "an answer to compare has weight 0: remove the weight, or the row")
        if any(one["role"] == "user" for one in answer):
            raise Unfit(
                "different_prompts",
                "chosen and rejected differ before the last question: they must be answers to the same conversation",
            )
    skip = ""
    if row.has("score_chosen", "score_rejected"):  # one alone says nothing, and is a field that is not used
        better, worse = (_score(row, name) for name in ("score_chosen", "score_rejected"))
        if better < worse:
            raise Unfit("scores_the_wrong_way", f"score_chosen {better:g} is less than score_rejected {worse:g}")
        skip = "equal_scores" if better == worse else ""
    return Example(form, before, answers, texts, _tools(row), _options(row), skip)


def _score(row: Fields, name: str) -> float:
    value = row.take(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit("not_a_number", f'field "{name}" is {type(value).__name__}, not a number')
    return float(value)


_ASKED = {"prompt": "pair", "question": "question-pair", "instruction": "alpaca-pair"}
"""Fields of preferences that ask, and their forms."""
PairParts = tuple[str, list[Message], tuple[list[Message], ...], bool]


def _pair(row: Fields) -> PairParts:
    chosen, rejected = row.take("chosen"), row.take("rejected")
    if row.has("conversations"):
        before = message_list(row.take("conversations"), "conversations")
        return "sharegpt-pair", before, ([message(chosen, "chosen")], [message(rejected, "rejected")]), False
    asked = next((name for name in _ASKED if name in row), "prompt")
    if is_transcript(chosen) and is_transcript(rejected):
        both = [transcript(row.text(name), name) for name in ("chosen", "rejected")]
        form = "transcripts"
    elif isinstance(chosen, list | tuple) and isinstance(rejected, list | tuple):
        both = [message_list(value, name) for value, name in ((chosen, "chosen"), (rejected, "rejected"))]
        form = "conversations"
    elif row.form([(asked,)]):
        before = _side(row, asked, "user")
        texts = not isinstance(row.take(asked), list | tuple)
        answers = tuple([{"role": "assistant", "content": row.text(name)}] for name in ("chosen", "rejected"))
        return _ASKED[asked], before, answers, texts
    else:
        raise Unfit(
            "unknown_form",
            'has "chosen" and "rejected" as texts, but no "prompt" (or "question", "instruction") for them: add one, '
            'or give conversations (lists of messages, or texts that begin with "Human:")',
        )
    # UltraFeedback repeats the chosen conversation.
    if "messages" in row and message_list(row.take("messages"), "messages") != both[0]:
        raise Unfit("two_prompts", 'field "messages" is not the conversation "chosen": write ignore: [messages]')
    before, both = _shared(both)
    if row.has(asked):
        before = _with_prompt(row, asked, before)
    return form, before, tuple(both), False


def _shared(both: list[list[Message]]) -> tuple[list[Message], list[list[Message]]]:
    """The messages that two conversations begin with, and the rest of each: at least its last message."""
    most = min(map(len, both)) - 1
    same = next((at for at in range(most) if both[0][at] != both[1][at]), most)
    return both[0][:same], [one[same:] for one in both]


def _with_prompt(row: Fields, name: str, shared: list[Message]) -> list[Message]:
    """What comes before the answers where a prompt stands beside them: they may repeat it or go on from it."""
    value = row.take(name)
    if isinstance(value, str) and is_transcript(value):
        given = transcript(value, name)
    else:
        given = _side(row, name, "user")
    spoken = [one for one in shared if one["role"] not in ("system", "developer")]
    if not spoken:
        return [*shared, *given]
    if spoken[0]["role"] == "assistant":
        return [*given, *shared]
    if shared[: len(given)] == given or spoken[: len(given)] == given:
        return shared
    if isinstance(value, str) and said(spoken[0]).strip() == value.strip():
        return shared
    raise Unfit(
        "two_prompts",
        f'field "{name}" is not what "chosen" and "rejected" begin with: write ignore: [{name}], or remove it',
    )


def _ranked(row: Fields) -> Example:
    """The best answer of a ranking against the worst (Nectar)."""
    for name in ("turns", "num_responses", "good_natured"):
        row.take(name)
    prompt = row.text("prompt")
    before = transcript(prompt, "prompt") if is_transcript(prompt) else [{"role": "user", "content": prompt}]
    found = []
    for number, entry in enumerate(row.take("answers") or []):
        ranked = isinstance(entry, Mapping) and isinstance(entry.get("rank"), int | float)
        if not ranked or not isinstance(entry.get("answer"), str) or not entry["answer"].strip():
            raise Unfit("not_ranked", f'answers[{number}] has no "answer" with a "rank"')
        if unknown := [name for name in entry if name not in ("answer", "rank", "model") and not is_empty(entry[name])]:
            raise Unfit(
                "unknown_field",
                f'answers[{number}] has the field "{unknown[0]}", which is not used: write {leaving_out(unknown[0])}',
            )
        found.append((float(entry["rank"]), entry["answer"]))
    if len(found) < 2:
        raise Unfit("not_ranked", 'field "answers" has less than two answers')
    found.sort(key=lambda entry: entry[0])
    best, worst = found[0], found[-1]
    answers = tuple([{"role": "assistant", "content": text}] for _, text in (best, worst))
    before = [*_system(row, before), *before]
    check_turns([*before, *answers[0]])
    return Example("ranked", before, answers, False, _tools(row), {}, "equal_scores" if best[0] == worst[0] else "")
