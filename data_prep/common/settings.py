"""Settings of the data stages: the keys of ``spec.settings``, their defaults, and what is refused.

::

    source:                         # where the text comes from
      type: gettext | path
      target: [pt_PT, pt]           # gettext: the first locale that translates a message wins
      contrast: [pt_BR]             # gettext: the other variant (rejected text of preferences)
      placeholders: drop | keep     # gettext: messages with %(name)s, {}, markup, accelerators
      reject_words: []              # gettext: drop a message whose target has one of these words
    split:
      validation: 0.05              # parts of the groups
      test: 0.15
      seed: 1
      existing: keep | pool         # splits that the files have (train.jsonl, test/, a README of the hub) stay; pool:
                                    #   all files are poured together and split anew
      config: null                  # of a README that has several configs
      names: {}                     # {train: train_sft, test: [test_sft]}: which splits of theirs become ours
      group: null                   # file: all documents of a file are in one split, the default of texts that are cut
                                    #   into documents; document: each for itself
    min_chars: 1                    # of every text of a row, in characters
    max_chars: null                 # null: no limit
    limit: {train: null, validation: null, test: null}    # rows (corpus: documents) of a split
    prompt: "Translate to European Portuguese: {source}\\n"   # instructions, preferences
    document_chars: 2000            # corpus
    prepare: {}                     # source type path: see data_prep.corpus.recipe and data_prep.rows.recipe

For the kinds of one chain to share no message, ``source`` (all but ``placeholders`` and ``reject_words``) and ``split``
must be the same in the three stages; the card's ``split.digest`` is then the same, too.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from data_prep.common.errors import SettingsError

KINDS = ("corpus", "instructions", "preferences")
SPLITS = ("train", "validation", "test")
SOURCE_MARK = "{source}"
DEFAULT_PROMPT = "Translate to European Portuguese: {source}\n"


@dataclass(frozen=True)
class SplitSettings:
    """Parts of the groups of messages; the rest is for training. ``seed`` decides which group goes where.

    The rest: see the head of this module.
    """

    validation: float = 0.05
    test: float = 0.15
    seed: int = 1
    existing: str = "keep"
    config: str | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: str | None = None

    @classmethod
    def parse(cls, value: Any) -> SplitSettings:
        given = known("split", value, tuple(entry.name for entry in fields(cls)))
        names = known("split.names", given.get("names", {}), SPLITS)
        for name, choices in (("existing", ("keep", "pool")), ("group", ("file", "document"))):
            if name in given and given[name] not in choices:
                raise fail(f"split.{name}", given[name], f"must be {' or '.join(choices)}")
        if "config" in given and not isinstance(given["config"], str):
            raise fail("split.config", given["config"], "must be a text")
        split = cls(
            part("split.validation", given.get("validation", cls.validation)),
            part("split.test", given.get("test", cls.test)),
            count("split.seed", given.get("seed", cls.seed), 0),
            given.get("existing", cls.existing),
            given.get("config"),
            {name: texts(f"split.names.{name}", [one] if isinstance(one, str) else one) for name, one in names.items()},
            given.get("group"),
        )
        if split.validation + split.test >= 1:
            raise SettingsError("setting split: validation and test together leave nothing to train on")
        return split

    def parts(self) -> dict[str, float]:
        """Part of each split, in the order of ``SPLITS``."""
        return {"train": 1 - self.validation - self.test, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class SourceSettings:
    """Where the text comes from; see the head of this module."""

    type: str
    target: tuple[str, ...] = ("pt_PT", "pt")
    contrast: tuple[str, ...] = ("pt_BR",)
    placeholders: str = "drop"
    reject_words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> SourceSettings:
        given = known("source", value, tuple(entry.name for entry in fields(cls)))
        kind = given.pop("type", None)
        if kind not in ("gettext", "path"):
            raise fail("source.type", kind, "must be gettext or path")
        if kind == "path":
            if given:
                raise SettingsError(f"setting source.{min(given)}: only for source type gettext")
            return cls(kind)
        source = cls(
            kind,
            texts("source.target", given.get("target", cls.target)),
            texts("source.contrast", given.get("contrast", cls.contrast)),
            given.get("placeholders", cls.placeholders),
            texts("source.reject_words", given.get("reject_words", cls.reject_words)),
        )
        if not source.target:
            raise fail("source.target", given.get("target"), "must name at least one locale")
        if source.placeholders not in ("drop", "keep"):
            raise fail("source.placeholders", source.placeholders, "must be drop or keep")
        return source


@dataclass(frozen=True)
class Settings:
    """All settings of a data stage of one kind."""

    kind: str
    source: SourceSettings
    split: SplitSettings = SplitSettings()
    min_chars: int = 1
    max_chars: int | None = None
    limit: dict[str, int] = field(default_factory=dict)
    prompt: str | None = None
    document_chars: int = 2000
    prepare: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, kind: str, value: Mapping[str, Any]) -> Settings:
        """Check ``spec.settings`` of a stage of this kind and fill in the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        if kind not in KINDS:
            raise SettingsError(f"data_prep does not make {kind!r}; it makes: {', '.join(KINDS)}")
        own = ("document_chars",) if kind == "corpus" else ("prompt",)
        given = known("", value, ("source", "split", "min_chars", "max_chars", "limit", "prepare", *own))
        if "source" not in given:
            raise SettingsError("setting source: missing")
        limit = known("limit", given.get("limit", {}), SPLITS)
        settings = cls(
            kind=kind,
            source=SourceSettings.parse(given["source"]),
            split=SplitSettings.parse(given.get("split", {})),
            min_chars=count("min_chars", given.get("min_chars", cls.min_chars), 1),
            max_chars=count("max_chars", given["max_chars"], 1) if "max_chars" in given else None,
            limit={name: count(f"limit.{name}", limit[name], 1) for name in SPLITS if name in limit},
            prompt=given.get("prompt"),
            document_chars=count("document_chars", given.get("document_chars", cls.document_chars), 1),
            prepare=given.get("prepare"),
        )
        if settings.prepare is not None and settings.source.type != "path":
            raise SettingsError("setting prepare: only for source type path")
        if settings.max_chars is not None and settings.max_chars < settings.min_chars:
            raise fail("max_chars", settings.max_chars, f"must not be less than min_chars ({settings.min_chars})")
        if settings.prompt is not None and (
            not isinstance(settings.prompt, str) or settings.prompt.count(SOURCE_MARK) != 1
        ):
            raise fail("prompt", settings.prompt, f"must be a text with {SOURCE_MARK} in it once")
        if kind == "preferences" and settings.source.type == "gettext" and not settings.source.contrast:
            raise SettingsError("setting source.contrast: preferences need a locale to reject")
        return settings

    def prompt_of(self, source: str) -> str:
        """The prompt for a source text. Only the literal mark is replaced: a template is data, not a format string.

        Rows of user files come with their prompt: it stays as it is unless a template is given.
        """
        template = self.prompt
        if template is None:
            template = DEFAULT_PROMPT if self.source.type == "gettext" else SOURCE_MARK
        return template.replace(SOURCE_MARK, source)


def fail(key: str, value: Any, wanted: str) -> SettingsError:
    """The error for a value that does not fit."""
    return SettingsError(f"setting {key}: {wanted}, not {value!r}")


def known(where: str, value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """``value`` as a mapping with no other keys than ``names``; keys that are null count as not given."""
    if not isinstance(value, Mapping):
        raise fail(where or "(all)", value, "must be a mapping")
    for name in value:
        if name not in names:
            raise SettingsError(f"setting {where + '.' if where else ''}{name}: unknown; known: {', '.join(names)}")
    return {name: entry for name, entry in value.items() if entry is not None}


def texts(key: str, value: Any) -> tuple[str, ...]:
    """``value`` as a list of words."""
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and entry.strip() for entry in value):
        raise fail(key, value, "must be a list of words")
    return tuple(value)


def count(key: str, value: Any, minimum: int) -> int:
    """``value`` as a whole number of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise fail(key, value, f"must be a whole number of at least {minimum}")
    return value


def part(key: str, value: Any) -> float:
    """``value`` as a part of 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise fail(key, value, "must be a part of 1 (0 <= part < 1)")
    return float(value)


def check_encoding(key: str, value: Any) -> str:
    """``value`` as the name of an encoding of text.

    Raises:
        SettingsError: there is none of this name.
    """
    try:
        "x".encode(value)  # codecs that are none of text are refused here
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError) as error:
        raise SettingsError(f"setting {key}: must be an encoding such as utf-16 or latin-1, not {value!r}") from error
