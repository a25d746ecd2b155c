"""A type of a typed class, or of a dataclass of settings, as JSON Schema."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jobs.core import strict
from jobs.core.settings import rule_of
from launch.config.allowed import allowed_by
from launch.config.document.typed import Before, StrictModel, TaggedBy, fields_of, plain_of

JsonSchema = dict[str, Any]
WordsOfKeys = Callable[[str], str]
"""What a key is for, by its dotted path; a key of the user's own choice is ``NAME`` in it. Empty: nothing is said."""

_SCALARS: dict[Any, JsonSchema] = {
    str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"},
    Path: {"type": "string"}, Any: {}, types.NoneType: {"type": "null"},
}  # fmt: skip
_OF_TYPE = {
    "string": ("pattern", "minLength"), "array": ("minItems",), "object": ("minProperties", "maxProperties"),
}  # fmt: skip
NAME = "NAME"


def under(path: str, name: str) -> str:
    """The path of a key of the mapping at ``path``."""
    return f"{path}.{name}" if path else name


def of_kind(kind: Any, words: WordsOfKeys, path: str = "") -> JsonSchema:
    """The schema of values of a type; ``path`` is where they stand."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(inner[0], inner[1:], words, path)
    if origin in (Union, types.UnionType):
        return either([of_kind(one, words, path) for one in inner])
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        return {"type": "array", "items": of_kind(inner[0], words, path)}
    if origin in (dict, Mapping):
        place = under(path, NAME)
        found = {"type": "object", "additionalProperties": told(of_kind(inner[1], words, place), words(place))}
        names = of_kind(inner[0], words)
        return found if names == {"type": "string"} else {**found, "propertyNames": names}
    if hasattr(kind, "json_schema"):
        return dict(kind.json_schema())
    if isinstance(kind, type) and issubclass(kind, StrictModel):
        return of_model(kind, words, path)
    if is_dataclass(kind):
        return of_dataclass(kind, words, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    return dict(_SCALARS[kind])


def of_model(model: type[StrictModel], words: WordsOfKeys, path: str = "") -> JsonSchema:
    """The schema of a class of a file."""
    keys, required = {}, []
    for field in fields_of(model).values():
        place = under(path, field.spelling)
        found = of_kind(field.annotation, words, place)
        if field.key.check is not None:
            found = with_keywords(found, allowed_by(field.key.check))
        keys[field.spelling] = told(found, words(place), MISSING if field.is_required else field.default)
        required += [field.spelling] if field.is_required else []
    return mapping(keys, required)


def of_dataclass(cls: Any, words: WordsOfKeys, path: str, leave_out: Iterable[str] = ()) -> JsonSchema:
    """The schema of a dataclass of settings, each with its rule (``jobs.core.settings``)."""
    kinds, required = strict.shape(cls)
    keys = {}
    for entry in fields(cls):
        if entry.name in leave_out:
            continue
        place = under(path, entry.name)
        found = with_keywords(of_kind(kinds[entry.name], words, place), rule_of(entry).keywords())
        keys[entry.name] = told(found, words(place), entry.default)
    return mapping(keys, [name for name in required if name in keys])


def mapping(keys: JsonSchema, required: Iterable[str] = ()) -> JsonSchema:
    """A mapping of these keys and no others."""
    found = {"type": "object", "properties": keys, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def told(schema: JsonSchema, text: str, default: Any = MISSING) -> JsonSchema:
    """With what it is for, and what stands where it is not written."""
    found = {"description": text, **schema} if text else dict(schema)
    value = plain_of(default)
    if default is not MISSING and value is not None and isinstance(value, str | int | float | list):
        found["default"] = value
    return found


def either(schemas: list[JsonSchema]) -> JsonSchema:
    """One of these; those that are types alone become a list of types."""
    if all(one.keys() == {"type"} for one in schemas):
        names = list(dict.fromkeys(one["type"] for one in schemas))
        return {"type": names if len(names) > 1 else names[0]}
    return {"anyOf": schemas}


def with_keywords(schema: JsonSchema, keywords: Mapping[str, Any]) -> JsonSchema:
    """The schema, narrowed."""
    if "anyOf" in schema:
        return {"anyOf": [one if one == {"type": "null"} else with_keywords(one, keywords) for one in schema["anyOf"]]}
    found = dict(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    for name, value in keywords.items():
        name = name.rstrip("_")
        if any(name in own and kind not in kinds for kind, own in _OF_TYPE.items()):
            continue
        if name == "enum" and "null" in kinds:
            value = [*value, None]
        if name in found and found[name] != value:
            found["allOf"] = [*found.get("allOf", []), {name: value}]
        else:
            found[name] = value
    return found


def _annotated(kind: Any, notes: Iterable[Any], words: WordsOfKeys, path: str) -> JsonSchema:
    tag = next((note.key for note in notes if isinstance(note, TaggedBy)), None)
    found = of_kind(kind, words, path) if tag is None else tagged(get_args(kind), tag, words, path)
    for note in notes:
        if not isinstance(note, Before | TaggedBy):
            found = with_keywords(found, allowed_by(note))
    for note in notes:
        if isinstance(note, Before) and (other := allowed_by(note.change)):
            found = {"anyOf": [dict(other), found]}
    return found


def tagged(models: Iterable[type[StrictModel]], key: str, words: WordsOfKeys, path: str) -> JsonSchema:
    """One of several classes, as ``key`` says."""
    by_tag = {tag: model for model in models for tag in get_args(model.__annotations__[key])}
    names = told({"enum": list(by_tag)}, words(under(path, key)))
    cases = {tag: of_model(model, words, path) for tag, model in by_tag.items()}
    return {"type": "object", "required": [key], "properties": {key: names}, "allOf": [
        {"if": {"properties": {key: {"const": tag}}, "required": [key]}, "then": schema}
        for tag, schema in cases.items()
    ]}  # fmt: skip
