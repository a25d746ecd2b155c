"""The tasks of an evaluation and the measures of answers as JSON Schema, from their registries."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from jobs.core import strict
from jobs.core.measures import MEASURES, CodeKeys
from jobs.core.tasks import FOUND, KINDS, TaskKind
from launch.config.schema.kinds import JsonSchema, WordsOfKeys, either, mapping, of_dataclass, told
from launch.config.suites import KEY

_NULL: JsonSchema = {"type": "null"}


def of_tasks(words: WordsOfKeys) -> JsonSchema:
    """``tasks:`` of an evaluation: a mapping, or a list of names."""
    own = {name: _named(kind, words) for name, kind in KINDS.items()}
    suites = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    whole = {
        "type": "object",
        "minProperties": 1,
        "properties": {KEY: told(suites, words(f"tasks.{KEY}")), **own},
        "additionalProperties": _by_its_keys(None),
    }
    names = {"type": "array", "items": {"enum": list(KINDS)}, "minItems": 1}
    return {"anyOf": [whole, names]}


def definitions(words: WordsOfKeys) -> JsonSchema:
    """What ``of_tasks`` refers to: the keys of each kind of task."""
    return {f"task-{name}": _of_kind(kind, words) for name, kind in KINDS.items()}


def _named(kind: TaskKind, words: WordsOfKeys) -> JsonSchema:
    return told({"anyOf": [_NULL, _by_its_keys(kind)]}, words(f"tasks.{kind.name}"))


def _by_its_keys(otherwise: TaskKind | None) -> JsonSchema:
    """As ``jobs.core.tasks.kind_of`` finds the kind: by ``task``, by a key that only one kind has, by the name."""
    found: JsonSchema = {"required": ["task"]} if otherwise is None else _reference(otherwise)
    for kind in reversed(KINDS.values()):
        if kind.key:
            is_it: JsonSchema = {"required": [kind.key]}
            if kind.value:
                is_it["properties"] = {kind.key: {"const": kind.value}}
            found = {"if": is_it, "then": _reference(kind), "else": found}
    for kind in reversed(KINDS.values()):
        is_it = {"required": ["task"], "properties": {"task": {"const": kind.name}}}
        found = {"if": is_it, "then": _reference(kind), "else": found}
    if otherwise is None:
        found = {**found, "properties": {"task": {"enum": list(KINDS)}}}
    return {"type": "object", **found}


def _reference(kind: TaskKind) -> JsonSchema:
    return {"$ref": f"#/$defs/task-{kind.name}"}


def _of_kind(kind: TaskKind, words: WordsOfKeys) -> JsonSchema:
    found = of_dataclass(kind.keys, words, "task", FOUND)
    kinds, _ = strict.shape(kind.keys)  # type: ignore[arg-type]
    for name, key in found["properties"].items():
        if kinds[name] is str and "true" in key.get("enum", ()):  # the words, see TaskKind.plain
            key["enum"] = [*key["enum"], True, False]
            del key["type"]
    if "measure" in found["properties"]:
        found["properties"]["measure"] = told(_of_measures(words), words("task.measure"))
    found["properties"] |= {
        "task": told({"const": kind.name}, words("task.task")),
        "options": told({"type": "object"}, words("task.options")),
    }
    return found


def _of_measures(words: WordsOfKeys) -> JsonSchema:
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        keys = of_dataclass(measure.keys, words, f"measure.{name}")
        forms = [_NULL, keys]
        if measure.keys is CodeKeys:
            forms.append({"type": "string"})
        found[name] = told(either(forms), words(f"measure.{name}"), MISSING)
    return {**mapping(found), "minProperties": 1}


def keys_of_kinds() -> dict[str, list[str]]:
    """Kind of task -> its keys, for the reference page."""
    return {name: [key.name for key in fields(kind.keys) if key.name not in FOUND] for name, kind in KINDS.items()}
