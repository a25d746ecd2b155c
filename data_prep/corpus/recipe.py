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
    near_duplicates: 0.8            # Jaccard similarity of 5-word shingles from which two documents are one; null:
    keep all
    evaluation: []                  # files or directories of test sets: documents that share 13 words with them go
    evaluation_words: 13
    replay: []                      # [{path: ..., share: 0.1}]: general text, as a share of all training characters;
                                    #   its encoding stands beside the share
    tokenizer: null                 # directory of a Hugging Face tokenizer (of a pipeline's stage also base: the one of
                                    #   its base model): also write Megatron's .bin and .idx
    eod: null                       # token that ends a document; null: the tokenizer's end token
    shard_bytes: 67108864           # the result does not depend on it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from data_prep.common.errors import SettingsError
from data_prep.common.settings import check_encoding, count, fail, known, part, texts


@dataclass(frozen=True)
class Quality:
    """Limits of the quality filter, after Rae et al., "Scaling Language Models" (Gopher, 2021), table A1.

    ``min_words``/``max_words``: words of a document; ``word_length``: mean characters of a word of Latin letters;
    ``symbols``: ``#`` and ellipses a word; ``letters``: least share of letters among what is not white space;
    ``bullets``/``ellipses``: share of lines that begin with a bullet or end in an ellipsis;
    ``repeated_lines``: share of characters in lines that occurred before in the same document.
    """

    min_words: int = 20
    max_words: int = 1_000_000
    word_length: tuple[float, float] = (3.0, 12.0)
    symbols: float = 0.1
    letters: float = 0.5
    bullets: float = 0.9
    ellipses: float = 0.3
    repeated_lines: float = 0.3

    @classmethod
    def parse(cls, value: Any) -> Quality | None:
        if value is False:
            return None
        given = known("prepare.quality", {} if value is True else value, tuple(entry.name for entry in fields(cls)))
        for name, entry in given.items():
            if name == "word_length":
                pair = list(entry) if isinstance(entry, list | tuple) else []
                if len(pair) != 2 or not all(isinstance(one, int | float) for one in pair) or pair[0] > pair[1]:
                    raise fail("prepare.quality.word_length", entry, "must be [shortest, longest]")
                given[name] = (float(pair[0]), float(pair[1]))
            elif name.endswith("_words"):
                given[name] = count(f"prepare.quality.{name}", entry, 0)
            elif isinstance(entry, bool) or not isinstance(entry, int | float) or entry < 0:
                raise fail(f"prepare.quality.{name}", entry, "must be a number of at least 0")
        return cls(**given)


@dataclass(frozen=True)
class Replay:
    """Text against forgetting: ``share`` of all characters for training comes from ``path``."""

    path: str
    share: float
    encoding: str | None = None


@dataclass(frozen=True)
class Recipe:
    """See the head of this module."""

    on_error: str = "fail"
    text_field: str = "text"
    encoding: str | None = None
    document_chars: int | None = None
    max_document_bytes: int = 10_000_000
    fix_encoding: bool = False
    quality: Quality | None = Quality()
    languages: tuple[str, ...] = ()
    mask_personal_data: bool = False
    exact_duplicates: bool = True
    near_duplicates: float | None = 0.8
    evaluation: tuple[str, ...] = ()
    evaluation_words: int = 13
    replay: tuple[Replay, ...] = ()
    tokenizer: str | None = None
    eod: str | None = None
    shard_bytes: int = 64 << 20

    @classmethod
    def parse(cls, value: Any) -> Recipe:
        """Check ``prepare`` and fill in the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        given = known("prepare", value, tuple(entry.name for entry in fields(cls)))
        if isinstance(value, Mapping) and "near_duplicates" in value and value["near_duplicates"] is None:
            given["near_duplicates"] = None
        for name, entry in given.items():
            given[name] = _checked(name, entry)
        recipe = cls(**given)
        if sum(entry.share for entry in recipe.replay) >= 1:
            raise SettingsError("setting prepare.replay: the shares leave nothing for the corpus itself")
        return recipe

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def encoding_of(self, group: int) -> str | None:
        """The declared encoding of the corpus itself (0) or of a replay source (from 1)."""
        return self.replay[group - 1].encoding if group else self.encoding


def _checked(name: str, value: Any) -> Any:
    key = f"prepare.{name}"
    if name == "on_error" and value not in ("fail", "skip"):
        raise fail(key, value, "must be fail or skip")
    if name in ("document_chars", "max_document_bytes", "evaluation_words", "shard_bytes"):
        return count(key, value, 1)
    if name in ("fix_encoding", "mask_personal_data", "exact_duplicates") and not isinstance(value, bool):
        raise fail(key, value, "must be true or false")
    if name in ("text_field", "tokenizer", "eod") and (not isinstance(value, str) or not value):
        raise fail(key, value, "must be a text")
    if name == "encoding":
        return check_encoding(key, value)
    if name == "quality":
        return Quality.parse(value)
    if name == "near_duplicates" and value is not None and part(key, value) < 0.5:
        raise fail(key, value, "must be at least 0.5: below that, documents share a topic, not a text")
    if name == "languages":
        codes = texts(key, value)
        if bad := [code for code in codes if not re.fullmatch("[a-z]{2,3}", code)]:
            raise fail(key, bad[0], "must be language codes such as en, pt, ko")
        return codes
    if name == "evaluation":
        return texts(key, value)
    if name == "replay":
        return _replay(key, value)
    return value


def _replay(key: str, value: Any) -> tuple[Replay, ...]:
    if not isinstance(value, list | tuple):
        raise fail(key, value, "must be a list of {path, share}")
    found = []
    for number, entry in enumerate(value):
        given = known(f"{key}[{number}]", entry, ("path", "share", "encoding"))
        if not {"path", "share"} <= set(given) or not isinstance(given["path"], str):
            raise fail(f"{key}[{number}]", entry, "must have a path and a share")
        encoding = given.get("encoding")
        if encoding is not None:
            encoding = check_encoding(f"{key}[{number}].encoding", encoding)
        found.append(Replay(given["path"], part(f"{key}[{number}].share", given["share"]), encoding))
    return tuple(found)
