"""Files over each other, and ``--set stages.cpt.steps=4`` over them: the upper value wins, every value keeps its place.

Mappings are put together key by key; text, numbers and lists replace what is below them as a whole, and so does an
entry of ``environments``, of which each says where one Python is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from launch.base.errors import InputError
from launch.base.text import suggest
from launch.config.document.positions import Document, KeyPath, Position, Positions, Problem, failure
from launch.config.document.reader import parse, parse_value, read, scalar

EXTENDS = "extends"
SET = "--set "
"""Before an option in the position of its value."""
_WHOLE = "environments"
NOT_FROM_PIPELINE = ("name", EXTENDS, "executor", "devcluster")

_NAMED = ("stages", "sources")  # their keys are the user's names: an option may change one, not invent one

Locate = Callable[[str, Path], Path]


def read_all(path: Path, locate: Locate, text: str | None = None, above: tuple[Path, ...] = ()) -> Document:
    """A file over everything that it extends, without the key ``extends``. ``locate`` gives the file that a name in
    ``extends`` means, ``text`` replaces the file's own, ``above`` are the files that extend this one. Raises
    InputError: a file is missing or malformed, or extends itself."""
    own = read(path) if text is None else parse(text, str(path))
    names = own.data.pop(EXTENDS, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise failure([Problem((EXTENDS,), "expected the name or path of a profile, or a list of them")], own.positions)
    below: Document | None = None
    for number, name in enumerate(names):
        place: KeyPath = (EXTENDS, number) if (EXTENDS, number) in own.positions.values else (EXTENDS,)
        try:
            file = locate(name, path)
        except InputError as error:
            raise failure([Problem(place, error.message)], own.positions, hint=error.hint) from error
        ring = [*above, path]
        if file.resolve() in [each.resolve() for each in ring]:
            shown = " -> ".join(map(str, [*ring, file]))
            raise failure([Problem(place, f"the profiles extend each other: {shown}")], own.positions)
        try:
            document = read_all(file, locate, above=(*above, path))
        except InputError as error:
            if error.where is not None:
                raise
            raise failure([Problem(place, error.message)], own.positions, hint=error.hint) from error
        document.data.pop("name", None)
        below = document if below is None else overlay(below, document)
    return own if below is None else overlay(below, own)


def of_pipeline(document: Document) -> Document:
    """The ``cluster:`` and ``resources:`` of a pipeline as keys of a profile. Raises InputError: one it cannot set."""
    data, positions = document
    said = data.get("cluster", {})
    if not isinstance(said, dict):
        raise failure([Problem(("cluster",), "expected a mapping (key: value)")], positions)
    refused = [
        Problem(("cluster", key), "cannot be set by a pipeline: choose another --cluster", at_key=True)
        for key in NOT_FROM_PIPELINE
        if key in said
    ]
    if refused:
        raise failure(refused, positions)
    found = Document(dict(said), moved(positions, ("cluster",), ()))
    if "resources" not in data:
        return found
    resources = {"resources": data["resources"]}
    return overlay(found, Document(resources, moved(positions, ("resources",), ("resources",))))


def moved(positions: Positions, old: KeyPath, new: KeyPath) -> Positions:
    """The marks at and below ``old`` as if it were ``new``."""

    def of(known: dict[KeyPath, Any]) -> dict[KeyPath, Any]:
        return {(*new, *path[len(old) :]): at for path, at in known.items() if path[: len(old)] == old}

    return replace(positions, keys=of(positions.keys), values=of(positions.values))


def overlay(below: Document, above: Document) -> Document:
    """``above`` over ``below``."""
    replaced: list[KeyPath] = []
    data = _merge(below.data, above.data, (), replaced)
    gone = set(replaced)

    def merged(lower: dict[KeyPath, Any], upper: dict[KeyPath, Any]) -> dict[KeyPath, Any]:
        kept = {
            path: at for path, at in lower.items() if not any(path[:depth] in gone for depth in range(len(path) + 1))
        }
        return {**kept, **upper}

    texts = {below.positions.file: below.positions.lines, **below.positions.texts, **above.positions.texts}
    keys = merged(below.positions.keys, above.positions.keys)
    values = merged(below.positions.values, above.positions.values)
    return Document(data, replace(above.positions, keys=keys, values=values, texts=texts))


def _merge(below: dict[str, Any], above: dict[str, Any], path: KeyPath, replaced: list[KeyPath]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        place = (*path, key)
        old = below.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and path != (_WHOLE,):
            result[key] = _merge(old, value, place, replaced)
        else:
            result[key] = value
            replaced.append(place)
    return result


class Override(NamedTuple):
    """A value for the key at ``path``, and where it was written."""

    path: tuple[str, ...]
    value: Any
    position: Position


def apply_overrides(document: Document, options: Sequence[str]) -> Document:
    """``document`` with the options applied; the position of their values is ``--set ...``. Values are read by the
    rules of the file, as flow style after ``[``, ``{`` or a quote. Raises InputError: not ``a.b.c=value``, or no such
    mapping."""
    return with_values(document, [_of_option(option) for option in options])


def with_values(document: Document, overrides: Sequence[Override]) -> Document:
    """``document`` with these values. Raises InputError: a key that cannot be set, at the position of its value."""
    if not overrides:
        return document
    data, positions = copy.deepcopy(document.data), document.positions
    positions = replace(positions, keys=dict(positions.keys), values=dict(positions.values))
    for override in overrides:
        _apply(data, positions, override)
    return Document(data, positions)


def path_of(dotted: str) -> tuple[str, ...]:
    """``stages.sft.lr`` as a path; empty where a part is missing."""
    path = tuple(dotted.strip().split("."))
    return path if all(path) else ()


def _of_option(option: str) -> Override:
    origin = f"{SET}{option}"
    dotted, equals, text = option.partition("=")
    path = path_of(dotted)
    if not equals or not path:
        raise InputError("write --set stages.NAME.KEY=VALUE", where=origin)
    return Override(path, option_value(text.strip(), origin), Position(origin))


def _apply(data: dict[str, Any], positions: Positions, override: Override) -> None:
    path, place = override.path, override.position

    def refused(text: str) -> InputError:
        excerpt = positions.excerpt(place)
        return InputError(f"{text}\n{excerpt}" if excerpt else text, where=str(place))

    inner = data
    for depth, part in enumerate(path[:-1], start=1):
        if part not in inner:
            if depth == 2 and path[0] in _NAMED:
                raise refused(f"there is no {path[0]}.{part}; {suggest(part, list(inner))}")
            inner[part] = {}
            _place(positions, path[:depth], place)
        inner = inner[part]
        if not isinstance(inner, dict):
            raise refused(f"{'.'.join(path[:depth])} is not a mapping")
    inner[path[-1]] = copy.deepcopy(override.value)
    _place(positions, path, place)


def option_value(text: str, origin: str) -> Any:
    """The value of an option, by the rules of the file: flow style after ``[``, ``{`` or a quote. Raises InputError."""
    try:
        return parse_value(text, origin) if text[:1] in ("[", "{", '"', "'") else scalar(text)
    except ValueError as error:
        raise InputError(str(error), where=origin) from error


def _place(positions: Positions, path: KeyPath, position: Position) -> None:
    """Everything at and below ``path`` now comes from there."""
    for known in (positions.keys, positions.values):
        for other in [other for other in known if other[: len(path)] == path]:
            del known[other]
        known[path] = position
