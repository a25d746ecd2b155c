"""The settings ``prepare`` of a corpus stage: how files become documents.

::

    on_error: fail | skip           # bad input: stop with file:line, or count it as dropped
    text_field: text                # of files of rows
    encoding: null                  # of text without a byte order mark (null: UTF-8), such as latin-1 or utf-16
    document_chars: null            # text files: null: a file is a document; else cut at empty lines into about so many
    max_document_bytes: 10000000    # longer lines and files are bad input
    fix_encoding: false             # repair mojibake (ftfy)
    quality: true                   # or a mapping of limits, see Quality; false: no quality filter
    languages: []                   # ISO 639-1 codes to keep (py3langid); empty: all
    mask_personal_data: false       # e-mail and IP addresses, phone and card numbers become <email> and so on
    exact_duplicates: true
    near_duplicates: 0.8            # Jaccard similarity of 5-word shingles from which two documents are one (at least
                                    #   0.5: below, they share a topic, not a text); null: keep all
    evaluation: []                  # files or directories of test sets: documents that share 13 words with them go
    evaluation_words: 13
    replay: []                      # [{path: ..., share: 0.1}]: general text, as a share of all training characters;
                                    #   its encoding stands beside the share
    tokenizer: null                 # directory of a Hugging Face tokenizer (of a pipeline's stage also base: the one of
                                    #   its base model): also write Megatron's .bin and .idx
    eod: null                       # token that ends a document; null: the tokenizer's end token
    special_tokens: escape | refuse | allow   # control tokens in texts: text; an error; control tokens
    shard_bytes: 67108864           # the result does not depend on it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_prep.common.errors import SettingsError
from data_prep.common.settings import Form, check_encoding, checked, fail, one_text, texts
from jobs.core.settings import setting
from jobs.encoding.settings import SPECIAL_TOKENS


@dataclass(frozen=True)
class Quality:
    """Limits of the quality filter, after Rae et al., "Scaling Language Models" (Gopher, 2021), table A1.

    ``min_words``/``max_words``: words of a document; ``word_length``: mean characters of a word of Latin letters;
    ``symbols``: ``#`` and ellipses a word; ``letters``: least share of letters among what is not white space;
    ``bullets``/``ellipses``: share of lines that begin with a bullet or end in an ellipsis;
    ``repeated_lines``: share of characters in lines that occurred before in the same document.
    """

    min_words: int = setting(20, at_least=0)
    max_words: int = setting(1_000_000, at_least=0)
    word_length: tuple[float, float] = (3.0, 12.0)
    symbols: float = setting(0.1, at_least=0)
    letters: float = setting(0.5, at_least=0)
    bullets: float = setting(0.9, at_least=0)
    ellipses: float = setting(0.3, at_least=0)
    repeated_lines: float = setting(0.3, at_least=0)

    @classmethod
    def parse(cls, key: str, value: Any) -> Quality | None:
        return (
            None if value is False else cls(**checked(cls, key, {} if value is True else value, {"word_length": _pair}))
        )


@dataclass(frozen=True)
class Replay:
    """Text against forgetting: ``share`` of all characters for training comes from ``path``."""

    path: str
    share: float = setting(at_least=0, below=1)
    encoding: str | None = None


@dataclass(frozen=True)
class Recipe:
    """See the head of this module."""

    on_error: str = setting("fail", choices=("fail", "skip"))
    text_field: str = "text"
    encoding: str | None = None
    document_chars: int | None = setting(None, at_least=1)
    max_document_bytes: int = setting(10_000_000, at_least=1)
    fix_encoding: bool = False
    quality: Quality | None = Quality()
    languages: tuple[str, ...] = ()
    mask_personal_data: bool = False
    exact_duplicates: bool = True
    near_duplicates: float | None = setting(0.8, at_least=0.5, below=1)
    evaluation: tuple[str, ...] = ()
    evaluation_words: int = setting(13, at_least=1)
    replay: tuple[Replay, ...] = ()
    tokenizer: str | None = None
    eod: str | None = None
    special_tokens: str = setting("escape", choices=SPECIAL_TOKENS)
    shard_bytes: int = setting(64 << 20, at_least=1)

    @classmethod
    def parse(cls, value: Any) -> Recipe:
        """``prepare``, checked, with the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        if isinstance(value, Mapping) and "group_by" in value:
            raise SettingsError(
                "setting prepare.group_by: it is for rows; split: {group: file} keeps documents of a file in one split"
            )
        given = checked(cls, "prepare", value, _FORMS)
        if isinstance(value, Mapping) and "near_duplicates" in value and value["near_duplicates"] is None:
            given["near_duplicates"] = None
        recipe = cls(**given)
        if sum(entry.share for entry in recipe.replay) >= 1:
            raise SettingsError("setting prepare.replay: the shares leave nothing for the corpus itself")
        return recipe

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def encoding_of(self, group: int) -> str | None:
        """The declared encoding of the corpus itself (0) or of a replay source (from 1)."""
        return self.replay[group - 1].encoding if group else self.encoding


def _pair(key: str, value: Any) -> tuple[float, float]:
    pair = list(value) if isinstance(value, list | tuple) else []
    if len(pair) != 2 or not all(isinstance(one, int | float) for one in pair) or pair[0] > pair[1]:
        raise fail(key, value, "must be [shortest, longest]")
    return float(pair[0]), float(pair[1])


def _languages(key: str, value: Any) -> tuple[str, ...]:
    codes = texts(key, value)
    if bad := [code for code in codes if not re.fullmatch("[a-z]{2,3}", code)]:
        raise fail(key, bad[0], "must be language codes such as en, pt, ko")
    return codes


def _replay(key: str, value: Any) -> tuple[Replay, ...]:
    if not isinstance(value, list | tuple):
        raise fail(key, value, "must be a list of {path, share}")
    each = (checked(Replay, f"{key}[{at}]", entry, {"encoding": check_encoding}) for at, entry in enumerate(value))
    return tuple(Replay(**given) for given in each)


_FORMS: dict[str, Form] = {
    "text_field": one_text, "encoding": check_encoding, "quality": Quality.parse, "languages": _languages,
    "evaluation": texts, "replay": _replay, "tokenizer": one_text, "eod": one_text,
}  # fmt: skip
"""Settings with a form of their own."""
