"""``--set stages.cpt.steps=4``: values of the command line over those of the file, with positions of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from launch.base.errors import InputError
from launch.base.text import suggest
from launch.config.document.positions import Document, KeyPath, Position, Positions
from launch.config.document.reader import parse_value, scalar

_NAMED = ("stages", "sources")  # their keys are the user's names: an option may change one, not invent one


def apply_overrides(document: Document, options: Sequence[str]) -> Document:
    """``document`` with the options applied; the position of what they set is ``--set ...``.

    The value is read by the rules of the file; one that starts with ``[``, ``{`` or a quote is YAML in flow style.

    Raises:
        InputError: an option is not ``a.b.c=value``, or leads through something that is no mapping or is not there.
    """
    if not options:
        return document
    data, positions = copy.deepcopy(document.data), document.positions
    positions = replace(positions, keys=dict(positions.keys), values=dict(positions.values))
    for option in options:
        _apply(data, positions, option)
    return Document(data, positions)


def _apply(data: dict[str, Any], positions: Positions, option: str) -> None:
    origin = f"--set {option}"
    dotted, equals, text = option.partition("=")
    path: KeyPath = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise InputError("write --set stages.NAME.KEY=VALUE", where=origin)
    value = _value(text.strip(), origin)
    inner = data
    for depth, part in enumerate(path[:-1], start=1):
        if part not in inner:
            if depth == 2 and path[0] in _NAMED:
                raise InputError(f"there is no {path[0]}.{part}; {suggest(str(part), list(inner))}", where=origin)
            inner[str(part)] = {}
            _place(positions, path[:depth], origin)
        inner = inner[str(part)]
        if not isinstance(inner, dict):
            raise InputError(f"{'.'.join(map(str, path[:depth]))} is no mapping", where=origin)
    inner[str(path[-1])] = value
    _place(positions, path, origin)


def _value(text: str, origin: str) -> Any:
    try:
        return parse_value(text, origin) if text[:1] in ("[", "{", '"', "'") else scalar(text)
    except ValueError as error:
        raise InputError(str(error), where=origin) from error


def _place(positions: Positions, path: KeyPath, origin: str) -> None:
    """Everything at and below ``path`` now comes from the option."""
    for known in (positions.keys, positions.values):
        for other in [other for other in known if other[: len(path)] == path]:
            del known[other]
        known[path] = Position(origin)
