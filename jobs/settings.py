"""Checks of a stage's settings, shared by the back ends: said before anything heavy is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.core.verdict import FailureClass


class BadSettings(ValueError):
    """A setting of the stage is unknown, of the wrong type or does not fit the others."""

    failure = FailureClass.BAD_CONFIGURATION


def unknown(given: Mapping[str, Any], known: Iterable[str], where: str = "setting") -> None:
    """Refuse names that are not known.

    Raises:
        BadSettings: with the nearest known name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise BadSettings(f"unknown {where} {name!r}; {hint}")


def typed(name: str, value: Any, annotation: str) -> Any:
    """``value`` as the annotated type (``int``, ``float`` or ``str``, perhaps ``| None``); an int passes for a float.

    Raises:
        BadSettings: of another type; nothing is converted from text.
    """
    if value is None and "None" in annotation:
        return None
    wanted: tuple[type, ...] = (str,)
    if annotation.startswith("int"):
        wanted = (int,)
    elif annotation.startswith("float"):
        wanted = (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise BadSettings(f"setting {name!r} must be {annotation}, not {value!r}")
    return float(value) if annotation.startswith("float") else value
