"""From plain data to a typed model: pydantic's errors in our words, each at its line, with the nearest valid key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from launch.base.text import nearest, suggest
from launch.config.document import secret_scan
from launch.config.document.positions import KeyPath, Positions, Problem, failure

M = TypeVar("M", bound=BaseModel)

SYNONYMS = {
    "learning_rate": "lr",
    "max_steps": "steps",
    "train_steps": "steps",
    "global_batch_size": "batch_size",
    "micro_batch": "micro_batch_size",
    "max_length": "sequence_length",
    "seq_length": "sequence_length",
    "warmup": "warmup_steps",
    "scheduler": "schedule",
    "gradient_clip": "max_grad_norm",
    "dtype": "precision",
    "walltime": "time",
    "time_limit": "time",
    "memory": "mem",
    "gpus": "gpus_per_node",
    "ntasks_per_node": "processes_per_node",
    "cpus_per_task": "cpus",
    "source": "from",
    "dataset": "data",
    "baseline": "compare_to",
    "environment": "environments",
    "venv": "environments",
    "routing": "executors",
}
"""Words that people bring from elsewhere, and what we call it."""

_DISCRIMINATORS = ("kind", "type")
_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping (key: value)",
    "model_type": "expected a mapping (key: value)",
    "model_attributes_type": "expected a mapping (key: value)",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "finite_number": "expected a finite number",
    "string_type": "expected text",
    "path_type": "expected a path",
}
_COMPARED = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def validate(model: type[M], data: Mapping[str, Any], positions: Positions, *, hint: str | None = None) -> M:
    """``data`` as ``model``. Raises InputError: every fault as ``p.yaml:3:5: stages.sft.lerning_rate: unknown key``."""
    secret_scan.refuse(data, positions)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(model, data, each) for each in error.errors(include_url=False)]
        raise failure(problems, positions, hint=hint) from None


def _problem(model: type[BaseModel], data: Any, error: Mapping[str, Any]) -> Problem:
    kind = error["type"]
    path, missing = _data_path(error["loc"], data, keep_last=kind == "missing")
    value = error.get("input")
    if kind == "extra_forbidden":
        name = str(path[-1])
        options = list(dict.fromkeys(_valid_keys(model, data, path[:-1])))
        near = suggest(name, options, SYNONYMS)
        if "options" in options and nearest(name, options, SYNONYMS) is None:
            near += f"; a setting of one back end stands under options: {{{name}: {show(value)}}}"
        return Problem(path, f"unknown key; {near} (value: {show(value)})", at_key=True)
    if missing:
        return Problem(path, "this key is required", at_key=True)
    if error["loc"] and error["loc"][-1] == "[key]":
        return Problem(path, _sentence(error, str(path[-1]) if path else ""), at_key=True)
    if kind == "union_tag_not_found":
        return Problem(path, f"the key {_discriminator(error)} is required", at_key=True)
    if kind == "union_tag_invalid":
        name = _discriminator(error)
        given = value.get(name) if isinstance(value, Mapping) else value
        tags = [tag.strip("' ") for tag in error["ctx"]["expected_tags"].split(",")]
        return Problem((*path, name), f"got {show(given)}; {suggest(str(given), tags)}")
    return Problem(path, _sentence(error, value))


def _sentence(error: Mapping[str, Any], value: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind == "string_type" and isinstance(value, int | float):
        written = str(value).lower() if isinstance(value, bool) else str(value)
        return f'expected text, got {show(value)}; quote this value: "{written}"'
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, got {show(value)}"
    if kind in _COMPARED:
        bound, words = _COMPARED[kind]
        return f"{words} {context[bound]:g}, got {show(value)}"
    if kind in ("literal_error", "enum"):
        options = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"got {show(value)}; {suggest(str(value), options)}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {show(value)}"


def show(value: Any) -> str:
    """A value in a message: short, text in quotes, containers by name."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _discriminator(error: Mapping[str, Any]) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _data_path(loc: Sequence[str | int], data: Any, keep_last: bool) -> tuple[KeyPath, bool]:
    """Drop from pydantic's location what is not in the file (tags of unions, ``[key]``); is a required key missing?"""
    path: list[str | int] = []
    tags = _tags_of(data)
    for number, part in enumerate(loc):
        if part in tags:
            tags = ()
        elif part in (data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list) else ()):
            data = data[part]
            tags = _tags_of(data)
            path.append(part)
        elif keep_last and number == len(loc) - 1:
            return (*path, part), True
    return tuple(path), False


def _tags_of(data: Any) -> tuple[Any, ...]:
    """What pydantic puts into a location where it has chosen a member of a union by this mapping's kind or type."""
    return tuple(data[key] for key in _DISCRIMINATORS if key in data) if isinstance(data, Mapping) else ()


def _valid_keys(annotation: Any, data: Any, path: KeyPath) -> Iterator[str]:
    """Keys that the mapping at ``path`` may have, by the types of the model."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        if not _could_be(fields, data):
            return
        if not path:
            yield from fields
        elif path[0] in fields and isinstance(data, Mapping):
            yield from _valid_keys(fields[str(path[0])].annotation, data.get(path[0]), path[1:])
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        yield from _valid_keys(arguments[0], data, path)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _valid_keys(argument, data, path)
    elif arguments and path and isinstance(data, Mapping | list):
        inner = arguments[-1] if isinstance(data, Mapping) else arguments[0]
        yield from _valid_keys(inner, typing.cast(Any, data)[path[0]], path[1:])


def _could_be(fields: Mapping[str, Any], data: Any) -> bool:
    """Whether the fixed values (``kind``, ``type``) of a model agree with the data."""
    if not isinstance(data, Mapping):
        return True
    return all(
        data[name] in get_args(field.annotation)
        for name, field in fields.items()
        if name in _DISCRIMINATORS and name in data and get_origin(field.annotation) is Literal
    )
