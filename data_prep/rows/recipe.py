"""The settings ``prepare`` of an instructions or preferences stage.

::

    on_error: fail | skip          # bad input: stop with file:line, or count it as dropped
    encoding: null                 # of text without a byte order mark (null: UTF-8), such as latin-1 or utf-16
    template: null                 # null: texts as they are; model: chat template of the tokenizer; llama-3.2: the
                                   #   guide's; else a text with {input} and {output}
    system: null                   # system message for rows that have none
    answers: last | each           # of several turns: learn the last answer, or each (a row for each answer)
    tokenizer: null                # directory of a Hugging Face tokenizer (of a pipeline's stage also base: the one of
                                   #   its base model): count tokens, find the chat template
    max_tokens: null               # prompt and answer together, with the end token
    over_length: drop | keep       # longer rows; kept ones are cut by the trainer
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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_prep.common.errors import SettingsError
from data_prep.common.settings import check_encoding, count, fail, known, part, texts
from data_prep.rows.export import FORMS

_COMMON = (
    "on_error", "encoding", "template", "system", "tokenizer", "max_tokens", "over_length", "max_over_length",
    "group_by", "stratify_by", "evaluation", "compare_with", "also",
)  # fmt: skip
_OF_KIND = {"instructions": ("answers", "pack"), "preferences": ("near_identical", "chosen_never", "swapped")}
_CHOICES = {
    "on_error": ("fail", "skip"), "answers": ("last", "each"), "over_length": ("drop", "keep"),
    "swapped": ("drop", "swap", "keep"),
}  # fmt: skip


@dataclass(frozen=True)
class RowRecipe:
    """See the head of this module."""

    kind: str
    on_error: str = "fail"
    encoding: str | None = None
    template: str | None = None
    system: str | None = None
    answers: str = "last"
    tokenizer: str | None = None
    max_tokens: int | None = None
    over_length: str = "drop"
    max_over_length: float = 0.05
    group_by: str | None = None
    stratify_by: str | None = None
    evaluation: tuple[str, ...] = ()
    compare_with: tuple[str, ...] = ()
    pack: int | None = None
    also: tuple[str, ...] = ()
    near_identical: float | None = None
    chosen_never: tuple[str, ...] = ()
    swapped: str = "drop"

    @classmethod
    def parse(cls, kind: str, value: Any) -> RowRecipe:
        """Check ``prepare`` of a stage of this kind and fill in the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        given = known("prepare", value, (*_COMMON, *_OF_KIND[kind]))
        recipe = cls(kind, **{name: _checked(name, entry, kind) for name, entry in given.items()})
        for name in ("max_tokens", "pack"):
            if getattr(recipe, name) is not None and recipe.tokenizer is None:
                raise SettingsError(f"setting prepare.{name}: needs prepare.tokenizer, to count tokens")
        if recipe.template == "model" and recipe.tokenizer is None:
            raise SettingsError("setting prepare.template: model needs prepare.tokenizer, which holds the template")
        return recipe

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


def _checked(name: str, value: Any, kind: str) -> Any:
    key = f"prepare.{name}"
    if name in _CHOICES and value not in _CHOICES[name]:
        raise fail(key, value, f"must be {', '.join(_CHOICES[name])}")
    if name == "encoding":
        return check_encoding(key, value)
    if name in ("max_tokens", "pack"):
        return count(key, value, 2)
    if name in ("max_over_length", "near_identical"):
        return part(key, value)
    if name in ("evaluation", "compare_with", "chosen_never"):
        return texts(key, value)
    if name == "also":
        found = texts(key, value)
        own = [form for form, its in FORMS.items() if its.kind == kind]
        if bad := [form for form in found if form not in own]:
            raise fail(key, bad[0], f"must be of {', '.join(own)}")
        return found
    if name in ("template", "system", "tokenizer", "group_by", "stratify_by") and (
        not isinstance(value, str) or not value.strip()
    ):
        raise fail(key, value, "must be a text")
    return value
