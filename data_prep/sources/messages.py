"""From gettext messages to units: which messages serve which kind, and how they are grouped for the split."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from data_prep.common import text
from data_prep.common.errors import DataError
from data_prep.common.settings import Settings
from data_prep.common.split import Groups
from data_prep.common.units import Tally, Unit
from data_prep.sources import catalogues
from data_prep.sources.catalogues import CatalogueMessage, Wheel


def find_wheels(directory: Path) -> list[Wheel]:
    """The wheels of a sealed download.

    Raises:
        DataError: none there, or one that cannot be read.
    """
    found = [catalogues.open_wheel(path) for path in sorted(directory.glob("*.whl"))]
    if not found:
        raise DataError("holds no wheels (*.whl)", directory)
    return found


def units(
    settings: Settings, wheels: list[Wheel], groups: Groups, tally: Tally, progress: Callable[[int, int], None]
) -> list[Unit]:
    """Messages that serve the kind, with all messages (also those that do not) joined into ``groups``.

    Dropping must not change the groups: another kind, which drops others, must split in the same way.

    Raises:
        DataError: no catalogue has the target locale.
    """
    source = settings.source
    reject = text.word_pattern(source.reject_words)
    found: list[Unit] = []
    for message in catalogues.messages(wheels, source.target, source.contrast, progress):
        tally.saw(message.catalogue)
        keys = _keys(message)
        groups.join(keys)
        unit = _judge(settings, message, reject)
        if isinstance(unit, str):
            tally.drop(unit)
        else:
            project = message.catalogue.partition("/")[0]
            found.append(Unit(message.name, message.catalogue, project, message.position, keys[0], unit))
    if not tally.read:
        names = ", ".join(wheel.path.name for wheel in wheels)
        raise DataError(f"no catalogue in the locales {', '.join(source.target)} in {names}")
    return found


def _keys(message: CatalogueMessage) -> list[str]:
    """Keys of source and translations; in two name spaces, for a word may be English as well as Portuguese."""
    keys = ["s:" + text.key(message.source), *("t:" + text.key(value) for value in message.texts.values())]
    # A text without words says nothing about who belongs together; its message is a group of its own.
    return [key for key in keys if len(key) > 2] or ["m:" + message.name]


def _judge(settings: Settings, message: CatalogueMessage, reject: re.Pattern[str] | None) -> tuple[str, ...] | str:
    """The texts that the kind needs, or why the message does not serve it."""
    source = settings.source
    if message.flaw is not None:
        return message.flaw
    target = next(message.texts[locale] for locale in source.target if locale in message.texts)
    texts: tuple[str, ...] = (target,)
    if settings.kind != "corpus":
        if not message.source:
            return "no_source_text"
        texts = (message.source, target)
    if settings.kind == "preferences":
        contrast = next((message.texts[locale] for locale in source.contrast if locale in message.texts), None)
        if contrast is None:
            return "no_contrast"
        texts = (message.source, target, contrast)
    if not all(map(text.has_words, texts)):
        return "no_words"
    if text.exact(message.source) == text.exact(target):
        return "same_as_source"
    if settings.kind == "preferences":
        if text.exact(texts[2]) == text.exact(target):
            return "no_difference"
        if text.exact(texts[2]) == text.exact(message.source):
            return "contrast_same_as_source"
    if any(text.odd_length(texts[0], value) for value in texts[1:]):
        return "odd_length"
    if (reason := _placeholders(source.placeholders, texts)) is not None:
        return reason
    if reject is not None and reject.search(target):
        return "reject_word"
    return length_flaw(settings, texts) or texts


def _placeholders(policy: str, texts: tuple[str, ...]) -> str | None:
    found = [text.placeholders(value) for value in texts]
    if policy == "drop":
        return "placeholders" if any(found) else None
    return None if all(one == found[0] for one in found) else "placeholders_differ"


def length_flaw(settings: Settings, texts: tuple[str, ...]) -> str | None:
    """``too_short`` or ``too_long`` if one of the texts is outside the limits."""
    if min(map(len, texts)) < settings.min_chars:
        return "too_short"
    if settings.max_chars is not None and max(map(len, texts)) > settings.max_chars:
        return "too_long"
    return None
