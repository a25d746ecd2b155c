"""Checks of a stage's settings, shared by the back ends: said before anything heavy is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from jobs.core.verdict import FailureClass

T = TypeVar("T")


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
    """``value`` as the annotated type (``int``, ``float``, ``bool`` or ``str``, perhaps ``| None``).

    An int passes for a float.

    Raises:
        BadSettings: of another type; nothing is converted from text.
    """
    if value is None and "None" in annotation:
        return None
    wanted: tuple[type, ...] = (str,)
    if annotation.startswith("bool"):
        if not isinstance(value, bool):
            raise BadSettings(f"setting {name!r} must be true or false, not {value!r}")
        return value
    if annotation.startswith("int"):
        wanted = (int,)
    elif annotation.startswith("float"):
        wanted = (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise BadSettings(f"setting {name!r} must be {annotation}, not {value!r}")
    return float(value) if annotation.startswith("float") else value


def build(cls: type[T], settings: Mapping[str, Any], required: Sequence[str] = ()) -> T:
    """An instance of the dataclass ``cls`` (of plain fields) from what a stage was told.

    Raises:
        BadSettings: an unknown name, a wrong type, or one of ``required`` missing.
    """
    known = {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]
    unknown(settings, known)
    for name in required:
        if settings.get(name) is None:
            raise BadSettings(f"setting {name!r} is missing")
    return cls(**{name: typed(name, value, known[name]) for name, value in settings.items()})


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among ``allowed``.

    Raises:
        BadSettings: naming what is allowed.
    """
    if value not in allowed:
        raise BadSettings(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
