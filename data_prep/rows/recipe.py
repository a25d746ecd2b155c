"""The settings ``prepare`` of an instructions or preferences stage.

::

    on_error: fail | skip          # bad input: stop with file:line, or count it as dropped
    encoding: null                 # of text without a byte order mark (null: UTF-8), such as latin-1 or utf-16
    template: null                 # null: conversations by the model's chat template, texts as they are; model: texts
                                   #   by it, too; FILE.jinja: all by this one; llama-3.2 (the guide's), or a text with
                                   #   {input} and {output}: one question and its answer
    template_options: {}           # given to the chat template: {enable_thinking: false}
    template_date: 2024-07-26      # the day that chat templates see as today (strftime_now): rows do not change with it
    system: null                   # system message for rows that have none
    answers: all | last | each     # of several turns: learn all answers of a conversation in one sequence, the last
                                   #   one, or make a row for each
    special_tokens: escape | refuse | allow   # control tokens in texts: text; an error; control tokens
    reasoning: template | keep | strip   # as the template does with it; under the name that it reads; not learned
    columns: {}                    # which field is which, where the rows have names of their own: {prompt: Question,
                                   #   completion: "Approved answer"}
    ignore: []                     # fields of rows (and of their messages) to leave out
    carry: []                      # fields to keep with the rows
    tokenizer: null                # directory of a Hugging Face tokenizer (of a pipeline's stage also base: the one of
                                   #   its base model): make the ids of every row as the trainer will, count them
    max_tokens: null               # ids of a row as the trainer counts them
    over_length: drop | keep       # longer rows; kept ones are for the trainer's setting too_long
    max_over_length: 0.05          # share of rows over max_tokens from which the stage refuses to go on
    group_by: null                 # field: rows that share its value go to one split (always so for equal prompts)
    stratify_by: null              # field: every value has the same shares of the splits
    evaluation: []                 # files of test sets: rows whose prompt is in them are dropped
    compare_with: []               # files (the SFT data of a preferences stage): shared prompts are counted on the card
    pack: null                     # instructions: also write rows packed to so many tokens (needs the tokenizer)
    also: []                       # forms of other back ends to write, too: see data_prep.rows.export
    near_identical: null           # preferences: drop pairs at least so similar (0..1); null: only count from 0.95
    chosen_never: []               # preferences: words that no chosen answer has: a pair where only the chosen one has
                                   #   one is swapped
    swapped: drop | swap | keep    # what becomes of those
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from data_prep.common.errors import SettingsError
from data_prep.common.settings import Form, check_encoding, checked, fail, one_text, texts
from data_prep.rows.export import FORMS
from data_prep.rows.fields import COLUMNS
from jobs.core.settings import setting
from jobs.encoding.settings import REASONING, SPECIAL_TOKENS, TEMPLATE_DATE, Encoding

JINJA = ".jinja"
LLAMA_3_2 = """<|begin_of_text|><|start_header_id|>system<|end_header_id|>

You are a helpful assistant.<|eot_id|><|start_header_id|>user<|end_header_id|>

{input}
Answer: <|eot_id|><|start_header_id|>assistant<|end_header_id|>

{output}"""
"""The prompt template of NVIDIA's fine-tuning guide for Llama 3.2."""
NAMED = {"llama-3.2": LLAMA_3_2}

_OF_KIND = {"instructions": ("answers", "pack"), "preferences": ("near_identical", "chosen_never", "swapped")}


def others(kind: str) -> tuple[str, ...]:
    """The fields of ``RowRecipe`` that are no settings of a stage of this kind."""
    return ("kind", *(name for of, names in _OF_KIND.items() if of != kind for name in names))


@dataclass(frozen=True)
class RowRecipe:
    """See the head of this module."""

    kind: str
    on_error: str = setting("fail", choices=("fail", "skip"))
    encoding: str | None = None
    template: str | None = None
    system: str | None = None
    answers: str = setting("all", choices=("all", "last", "each"))
    template_options: Mapping[str, Any] = field(default_factory=dict)
    template_date: str = TEMPLATE_DATE
    special_tokens: str = setting("escape", choices=SPECIAL_TOKENS)
    reasoning: str = setting("template", choices=REASONING)
    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()
    tokenizer: str | None = None
    max_tokens: int | None = setting(None, at_least=2)
    over_length: str = setting("drop", choices=("drop", "keep"))
    max_over_length: float = setting(0.05, at_least=0, below=1)
    group_by: str | None = None
    stratify_by: str | None = None
    evaluation: tuple[str, ...] = ()
    compare_with: tuple[str, ...] = ()
    pack: int | None = setting(None, at_least=2)
    also: tuple[str, ...] = ()
    near_identical: float | None = setting(None, at_least=0, below=1)
    chosen_never: tuple[str, ...] = ()
    swapped: str = setting("drop", choices=("drop", "swap", "keep"))

    @classmethod
    def parse(cls, kind: str, value: Any) -> RowRecipe:
        """``prepare`` of a stage of this kind, checked, with the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        forms: dict[str, Form] = {**_FORMS, "also": functools.partial(_also, kind)}
        recipe = cls(kind, **checked(cls, "prepare", value, forms, others(kind)))
        for name in ("max_tokens", "pack"):
            if getattr(recipe, name) is not None and recipe.tokenizer is None:
                raise SettingsError(f"setting prepare.{name}: needs prepare.tokenizer, to count tokens")
        if recipe.text_template is not None and not _has_places(recipe.text_template):
            raise SettingsError(
                f"setting prepare.template: must be model, {', '.join(NAMED)}, a file FILE.jinja, or a text with "
                f"{{input}} and then {{output}} in it, each once, not {recipe.text_template[:60]!r}"
            )
        return recipe

    @property
    def text_template(self) -> str | None:
        """The text with {input} and {output}, where ``template`` is one or names one."""
        if self.template is None or self.template == "model" or self.template.endswith(JINJA):
            return None
        return NAMED.get(self.template, self.template)

    def row_encoding(self) -> Encoding:
        """What the data set says of how its rows become ids.

        Raises:
            SettingsError: there is no such template.
        """
        chat = None
        if self.template is not None and self.template.endswith(JINJA):
            try:
                chat = Path(self.template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"setting prepare.template: {self.template} cannot be read: {error}") from error
        own = (self.special_tokens, self.reasoning, self.template_options, self.template_date)
        return Encoding(self.text_template, chat, *own)

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


def _has_places(template: str) -> bool:
    return template.count("{input}") == template.count("{output}") == 1 and template.index("{input}") < template.index(
        "{output}"
    )


def _also(kind: str, key: str, value: Any) -> tuple[str, ...]:
    found = texts(key, value)
    own = [form for form, its in FORMS.items() if its.kind == kind]
    if bad := [form for form in found if form not in own]:
        raise fail(key, bad[0], f"must be of {', '.join(own)}")
    return found


def _options(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise fail(key, value, "must be a mapping")
    return dict(value)


def _day(key: str, value: Any) -> str:
    try:
        if date.fromisoformat(value).isoformat() == value:
            return str(value)
    except (TypeError, ValueError):
        pass
    raise fail(key, value, "must be a day such as 2024-07-26")


def columns(key: str, value: Any) -> dict[str, str]:
    """Our name of a field -> that of the rows.

    Raises:
        SettingsError: no mapping of texts, a name that no form has, or one field for two.
    """
    if not isinstance(value, Mapping) or not all(isinstance(theirs, str) and theirs for theirs in value.values()):
        raise fail(key, value, "must be a mapping such as {prompt: Question, completion: Answer}")
    if unknown := [name for name in value if name not in COLUMNS]:
        raise fail(key, unknown[0], f"must name {', '.join(COLUMNS)}")
    if len(set(value.values())) < len(value):
        raise fail(key, value, "must name each field once")
    return dict(value)


_FORMS: dict[str, Form] = {
    "columns": columns,
    "encoding": check_encoding, "template": one_text, "template_options": _options, "system": one_text,
    "ignore": texts, "carry": texts, "tokenizer": one_text, "group_by": one_text, "stratify_by": one_text,
    "evaluation": texts, "compare_with": texts, "chosen_never": texts, "template_date": _day,
}  # fmt: skip
"""Settings with a form of their own."""
