"""Settings of the data stages: the keys of ``spec.settings``, their defaults, and what is refused.

::

    source:                         # where the text comes from
      type: gettext | path | word_problems
      target: [pt_PT, pt]           # gettext: the first locale that translates a message wins
      contrast: [pt_BR]             # gettext: the other variant (rejected text of preferences)
      placeholders: drop | keep     # gettext: messages with %(name)s, {}, markup, accelerators
      reject_words: []              # gettext: drop a message whose target has one of these words
      languages: [es, en, ko]       # word_problems: those of which each problem is written; see data_prep.sources
      count: 2000                   # word_problems: how many, each in every language
      steps: 2                      # word_problems: of a solution, at the most
      largest: 20                   # word_problems: of the numbers in a problem
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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from data_prep.common.errors import SettingsError
from jobs.core import strict
from jobs.core.settings import rule_of, setting

KINDS = ("corpus", "instructions", "preferences")
SPLITS = ("train", "validation", "test")
SOURCE_MARK = "{source}"
DEFAULT_PROMPT = "Translate to European Portuguese: {source}\n"


WRITTEN = ("en", "es", "ko")
"""Languages in which word problems are written."""

_OF_TYPE: dict[str, tuple[str, ...]] = {
    "gettext": ("target", "contrast", "placeholders", "reject_words"),
    "path": (),
    "word_problems": ("languages", "count", "steps", "largest"),
}
"""Type of a source -> its own keys."""


@dataclass(frozen=True)
class SplitSettings:
    """Parts of the groups of messages; the rest is for training. ``seed`` decides which group goes where.

    The rest: see the head of this module.
    """

    validation: float = setting(0.05, at_least=0, below=1)
    test: float = setting(0.15, at_least=0, below=1)
    seed: int = setting(1, at_least=0)
    existing: str = setting("keep", choices=("keep", "pool"))
    config: str | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: str | None = setting(None, choices=("file", "document"))

    @classmethod
    def parse(cls, key: str, value: Any) -> SplitSettings:
        split = cls(**checked(cls, key, value, {"names": _names}))
        if split.validation + split.test >= 1:
            raise SettingsError("setting split: validation and test together leave nothing to train on")
        return split

    def parts(self) -> dict[str, float]:
        """Part of each split, in the order of ``SPLITS``."""
        return {"train": 1 - self.validation - self.test, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class SourceSettings:
    """Where the text comes from; see the head of this module."""

    type: str = setting(choices=tuple(_OF_TYPE))
    target: tuple[str, ...] = ("pt_PT", "pt")
    contrast: tuple[str, ...] = ("pt_BR",)
    placeholders: str = setting("drop", choices=("drop", "keep"))
    reject_words: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    count: int = setting(2000, at_least=1)
    steps: int = setting(2, at_least=1)
    largest: int = setting(20, at_least=6)

    @classmethod
    def parse(cls, key: str, value: Any) -> SourceSettings:
        given = checked(cls, key, value, dict.fromkeys(("target", "contrast", "reject_words", "languages"), texts))
        if other := given.keys() - {"type", *_OF_TYPE.get(given.get("type", ""), ())}:
            owner = next(name for name, keys in _OF_TYPE.items() if min(other) in keys)
            raise SettingsError(f"setting source.{min(other)}: only for source type {owner}")
        if bad := [one for one in given.get("languages", ()) if one not in WRITTEN]:
            raise fail("source.languages", bad[0], f"must be of {', '.join(WRITTEN)}")
        source = cls(**given)
        if not source.target:
            raise fail("source.target", given.get("target"), "must name at least one locale")
        return source


@dataclass(frozen=True)
class Settings:
    """All settings of a data stage of one kind."""

    kind: str
    source: SourceSettings
    split: SplitSettings = SplitSettings()
    min_chars: int = setting(1, at_least=1)
    max_chars: int | None = setting(None, at_least=1)
    limit: dict[str, int] = field(default_factory=dict)
    prompt: str | None = None
    document_chars: int = setting(2000, at_least=1)
    prepare: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, kind: str, value: Mapping[str, Any]) -> Settings:
        """``spec.settings`` of a stage of this kind, checked, with the defaults.

        Raises:
            SettingsError: names the key and what it must be.
        """
        if kind not in KINDS:
            raise SettingsError(f"data_prep does not make {kind!r}; it makes: {', '.join(KINDS)}")
        other = ("kind", "prompt" if kind == "corpus" else "document_chars")
        settings = cls(kind, **checked(cls, "", value, _FORMS, other))
        if settings.prepare is not None and settings.source.type == "gettext":
            raise SettingsError("setting prepare: not for source type gettext")
        if kind != "instructions" and settings.source.type == "word_problems":
            raise SettingsError("setting source.type: word_problems are instructions")
        if kind != "corpus" and settings.split.group is not None:
            raise SettingsError(
                "setting split.group: it is for documents of a corpus; prepare.group_by keeps rows in one split"
            )
        if settings.max_chars is not None and settings.max_chars < settings.min_chars:
            raise fail("max_chars", settings.max_chars, f"must not be less than min_chars ({settings.min_chars})")
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


Form = Callable[[str, Any], Any]
"""Reads the value of a setting, given its key."""


def checked(
    cls: type, where: str, value: Any, forms: Mapping[str, Form], leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """The settings in ``value`` by the fields of the dataclass ``cls``, each of its type and by its rule; or as one of
    ``forms`` reads it, which is given the key and the value.

    Raises:
        SettingsError: names the key and what it must be.
    """
    kinds, required = strict.shape(cls)
    rules = {entry.name: rule_of(entry) for entry in fields(cls) if entry.name not in leave_out}
    given = known(where, value, tuple(rules))
    prefix = f"{where}." if where else ""
    for name in required:
        if name not in given and name not in leave_out:
            raise SettingsError(f"setting {prefix}{name}: missing")
    for name, entry in given.items():
        if name in forms:
            given[name] = forms[name](prefix + name, entry)
            continue
        try:
            given[name] = strict.convert(kinds[name], entry, f"setting {prefix}{name}:")
        except ValueError as error:
            raise SettingsError(str(error)) from error
        problem = rules[name].problem(given[name])
        if problem is not None:
            raise SettingsError(f"setting {prefix}{name}: {problem}")
    return given


def texts(key: str, value: Any) -> tuple[str, ...]:
    """``value`` as a list of words."""
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and entry.strip() for entry in value):
        raise fail(key, value, "must be a list of words")
    return tuple(value)


def one_text(key: str, value: Any) -> str:
    """``value`` as a text with content."""
    if not isinstance(value, str) or not value.strip():
        raise fail(key, value, "must be a text")
    return value


def _names(key: str, value: Any) -> dict[str, tuple[str, ...]]:
    """Ours -> names of the files' own splits."""
    given = known(key, value, SPLITS)
    return {name: texts(f"{key}.{name}", [one] if isinstance(one, str) else one) for name, one in given.items()}


def _limit(key: str, value: Any) -> dict[str, int]:
    given = known(key, value, SPLITS)
    for name, one in given.items():
        if not isinstance(one, int) or isinstance(one, bool) or one < 1:
            raise fail(f"{key}.{name}", one, "must be a whole number of at least 1")
    return given


def _prompt(key: str, value: Any) -> str:
    if not isinstance(value, str) or value.count(SOURCE_MARK) != 1:
        raise fail(key, value, f"must be a text with {SOURCE_MARK} in it once")
    return value


_FORMS: dict[str, Form] = {
    "source": SourceSettings.parse, "split": SplitSettings.parse, "limit": _limit, "prompt": _prompt,
    "prepare": lambda _, value: value,
}  # fmt: skip


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
