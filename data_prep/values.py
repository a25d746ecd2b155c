"""Checks of single settings, each with a message that names the key. ``null`` counts as not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.errors import SettingsError


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
