"""A row of a file to the rows that are trained, as they are stored: messages, or texts of one question and answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from data_prep.card.account import SAMPLE_CHARS, Account
from data_prep.common.units import identify
from data_prep.rows import conversations, forms
from data_prep.rows.fields import Fields, is_null, renamed
from data_prep.rows.forms import Example
from data_prep.rows.messages import Unfit, said, without_reasoning, written
from data_prep.rows.recipe import RowRecipe
from jobs.encoding.messages import Message

ANSWERS = {"instructions": ("completion",), "preferences": ("chosen", "rejected")}
_TEXTS = ("completion", "chosen", "rejected")
_SYSTEM = ("system", "developer")


PAIR, EVALUATION, ENCODING, LENGTH = 1, 2, 3, 4
"""Steps at which a row may be dropped for what it is, in their order."""
NEAR, SWAPPED, SHARED, OVER = 1, 2, 4, 8
"""Bits of ``flags``, counted on the card: nearly the same answers, the wrong way round, a prompt of ``compare_with``,
more than ``max_tokens``."""


class Texts(NamedTuple):
    """The texts of a row, to compare and to show. ``context``: system messages and tools; ``questions``: of all
    turns."""

    asked: str
    context: str
    answers: tuple[str, ...]
    questions: tuple[str, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Texts:
        """Those of a row as it is stored."""
        if isinstance(row.get("prompt"), str):
            return cls(row["prompt"], "", tuple(row[name] for name in row if name in _TEXTS), (row["prompt"],))
        if "messages" in row:
            before, ends = row["messages"][:-1], [row["messages"][-1:]]
        else:
            before, ends = row["prompt"], [row[name] for name in ANSWERS["preferences"]]
        spoken = [one for one in before if one["role"] not in _SYSTEM]
        context = [said(one) for one in before if one["role"] in _SYSTEM]
        if row.get("tools"):
            context.append(json.dumps(row["tools"], sort_keys=True))
        questions = tuple(said(one) for one in spoken if one["role"] == "user")
        return cls("\n".join(map(said, spoken)), "\n".join(context), tuple(map(written, ends)), questions)


@dataclass
class Draft:
    """A row on its way.

    ``row``: what is written; ``meta``: fields that are kept beside it. ``group``, ``stratum``, ``conversation`` (the
    row of the file that it is one of several of) and ``keys`` (rows that share one stay together) are for the split.
    ``skip``: a reason to leave it out, whatever its texts are. ``step``, ``reason``, ``sample``: where, why and with
    which text it is dropped, if it is no repetition. ``tokens``: ids of its longest sequence; ``encoded``: where the
    ids are kept.
    """

    place: str
    form: str
    row: dict[str, Any]
    meta: dict[str, Any]
    texts: Texts
    group: str
    stratum: str
    conversation: str
    keys: tuple[str, ...]
    skip: str = ""
    split: str = ""
    step: int = 0
    reason: str = ""
    sample: str = ""
    flags: int = 0
    tokens: int = 0
    encoded: int = -1

    def drop(self, step: int, reason: str, sample: str) -> None:
        """Leave it out, at a step."""
        self.step, self.reason, self.sample = step, reason, sample[:SAMPLE_CHARS]

    @cached_property
    def id(self) -> str:
        """Of the content of the row alone."""
        if isinstance(self.row.get("prompt"), str):
            return identify(*self.row.values())
        return identify(json.dumps(self.row, ensure_ascii=False, sort_keys=True))

    def line(self) -> str:
        """The row as it is written."""
        found = {"id": self.id, **self.row, **({"meta": self.meta} if self.meta else {})}
        return json.dumps(found, ensure_ascii=False) + "\n"


def of_row(place: str, row: dict[str, Any], recipe: RowRecipe, account: Account) -> list[Draft]:
    """What is trained of a row: one row, or with ``answers: each`` one for each answer.

    Raises:
        Unfit: the row has no known form, a field that is not used, or no place in the template.
    """
    by = [name for name in (recipe.group_by, recipe.stratify_by) if name is not None]
    fields = Fields(renamed(row, recipe.columns), recipe.ignore, (*recipe.carry, *by))
    example = forms.preferences(fields) if recipe.kind == "preferences" else forms.instructions(fields)
    meta = fields.carried(example.form)
    group, stratum = (_field(row, name) for name in (recipe.group_by, recipe.stratify_by))
    before, answers = _with_settings(example, recipe, account)
    conversation = ""
    if recipe.answers == "each":
        content = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", "replace")
        conversation = "t:" + hashlib.blake2b(content, digest_size=12).hexdigest()
    found = []
    for asked, ends in _parts(before, answers, recipe):
        spoken = [one for one in asked if one["role"] not in _SYSTEM]
        keys = conversations.keys(spoken, ends)
        made = _stored(example, asked, ends, recipe)
        of_row = (meta, Texts.of(made), group, stratum, conversation, keys, example.skip)
        found.append(Draft(place, example.form, made, *of_row))
    for name, count in fields.ignored.items():
        account.notes[f"ignored: {name}"] += count
    return found


def _field(row: dict[str, Any], name: str | None) -> str:
    if name is None:
        return ""
    if is_null(row.get(name)):
        raise Unfit("missing_field", f'field "{name}" (to split by) is missing')
    return str(row[name])


def _with_settings(
    example: Example, recipe: RowRecipe, account: Account
) -> tuple[list[Message], tuple[list[Message], ...]]:
    """The messages with the settings ``system`` and ``reasoning``."""
    before, answers = example.before, example.answers
    if recipe.reasoning == "strip":
        stripped = without_reasoning(before), tuple(without_reasoning(answer) for answer in answers)
        account.notes["reasoning left out"] += stripped != (before, answers)
        before, answers = stripped
        for answer in answers:
            if not said(answer[-1]).strip() and not answer[-1].get("tool_calls"):
                raise Unfit("empty_text", "the last answer has nothing but reasoning (reasoning: strip)")
    if recipe.system is not None and before[0]["role"] not in _SYSTEM:
        before = [{"role": "system", "content": recipe.system}, *before]
    return before, answers


def _parts(
    before: list[Message], answers: tuple[list[Message], ...], recipe: RowRecipe
) -> Iterator[tuple[list[Message], tuple[list[Message], ...]]]:
    """What comes before and the answers of each row that is made of a conversation."""
    if recipe.kind == "preferences" or recipe.answers == "all":
        yield before, answers
        return
    messages = [*before, *answers[0]]
    learned = [at for at, one in enumerate(messages) if one["role"] == "assistant" and one.get("weight", 1)]
    last = len(messages) - 1
    if recipe.answers == "last" and learned[-1] != last:
        raise Unfit("nothing_to_learn", "the last answer has weight 0, and answers: last learns no other")
    for at in learned if recipe.answers == "each" else [last]:
        silent = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in messages[:at]]
        yield silent, ([messages[at]],)


def _stored(
    example: Example, before: list[Message], answers: tuple[list[Message], ...], recipe: RowRecipe
) -> dict[str, Any]:
    """The row that is written."""
    names = ANSWERS[recipe.kind]
    single = [one["role"] for one in before] == ["user"] and not example.tools and all(map(_is_text, answers))
    if recipe.text_template is not None and not single:
        raise Unfit(
            "no_place_in_template",
            "several turns, a system message or tools have no place in a template of one question and its answer: "
            "template: model or a file FILE.jinja holds them",
        )
    if single and (recipe.text_template is not None or (example.texts and recipe.template is None)):
        return {"prompt": said(before[0])} | {name: said(one[0]) for name, one in zip(names, answers, strict=True)}
    if recipe.kind == "instructions":
        found: dict[str, Any] = {"messages": [*before, *answers[0]]}
    else:
        found = {"prompt": before} | dict(zip(names, answers, strict=True))
    if example.tools:
        found["tools"] = example.tools
    if example.options:
        found["chat_template_kwargs"] = example.options
    return found


def _is_text(answer: Sequence[Message]) -> bool:
    """Whether an answer is one message that says nothing but its content."""
    return len(answer) == 1 and not answer[0].keys() - {"role", "content", "weight"}
