"""Plain data read as classes with annotations: every fault at its path, in our words, with the nearest valid key.

pydantic does this, too, and builds schemas of all 160 keys of both files before it reads a value: that was a third
of the CPU of a submission, and its errors had to be put into other words. Here a type is looked at when a value of it
is read.
Modules with such classes do not import ``annotations`` from ``__future__``: here those are no texts.
"""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, FrozenInstanceError
from enum import Enum
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

from launch.base.text import suggest
from launch.config.document import secret_scan
from launch.config.document.positions import Positions, Problem, dotted, failure
from launch.config.document.words import show, unknown_key

M = TypeVar("M", bound="StrictModel")
ReadValue = Callable[[Any], Any]
"""Makes the typed value of a plain one. Raises ValueError, for faults inside of the value ``Faults``."""


class Faults(ValueError):
    """What is wrong with a value, each at its path inside of it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{dotted(one.path)}: {one.text}" if one.path else one.text for one in problems))
        self.problems = problems


def problems_of(error: ValueError) -> Sequence[Problem]:
    """What a reader complains of."""
    return error.problems if isinstance(error, Faults) else [Problem((), str(error))]


class Before(NamedTuple):
    """Metadata of ``Annotated``: done with a value before it is read. (Plain functions there get it afterwards.)"""

    change: ReadValue


class TaggedBy(NamedTuple):
    """Metadata of ``Annotated``: which class of a union it is says the value of this key."""

    key: str


class Key(NamedTuple):
    """What stands where a key is not written, how files spell it, and a check of its value."""

    default: Any = MISSING
    default_factory: Callable[[], Any] | None = None
    alias: str | None = None
    check: ReadValue | None = None


def key(*, default: Any = MISSING, default_factory: Callable[[], Any] | None = None, alias: str | None = None) -> Any:
    """A ``Key`` in place of a default."""
    return Key(default, default_factory, alias)


class Field(NamedTuple):
    """A key of a class, with all that is known of it."""

    spelling: str
    annotation: Any
    read: ReadValue
    key: Key

    @property
    def is_required(self) -> bool:
        return self.key.default is MISSING and self.key.default_factory is None

    @property
    def default(self) -> Any:
        """What it is where it is not written; ``MISSING``: it has to be."""
        return self.key.default if self.key.default_factory is None else self.key.default_factory()


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key,))
class StrictModel:
    """Base of everything read from a file: frozen, no unknown keys, values of the annotated types and no other."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(vars(self.read(values)))

    @classmethod
    def read(cls, value: Any) -> Self:
        """``value``, a mapping, as this class. Raises ValueError: every fault of it."""
        if isinstance(value, cls):
            return value
        fields, given = fields_of(cls), _mapping(value)
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, field in fields.items():
            if field.spelling in given:
                found[name] = _inside(problems, field.spelling, field.read, given[field.spelling])
            elif field.is_required:
                problems.append(Problem((field.spelling,), "this key is required", at_key=True))
            else:
                found[name] = field.default
        known = [field.spelling for field in fields.values()]
        problems += [unknown_key(name, given[name], known) for name in given if name not in known]
        if problems:
            raise Faults(problems)
        made = object.__new__(cls)
        vars(made).update(found)
        made._check()
        return made

    def _check(self) -> None:
        """What is wrong with these values together. Raises ValueError."""

    def changed(self, **values: Any) -> Self:
        """These with other values, which are not checked."""
        made = copy.copy(self)
        vars(made).update(values)
        return made

    def plain(self) -> dict[str, Any]:
        """As JSON has it, in the spelling of files."""
        return {field.spelling: plain_of(getattr(self, name)) for name, field in fields_of(type(self)).items()}

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise FrozenInstanceError(f"{name}: a {type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(repr(self))  # a mapping among the values has no hash of its own

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def plain_of(value: Any) -> Any:
    """A value of a class as JSON has it."""
    if isinstance(value, StrictModel):
        return value.plain()
    if isinstance(value, dict):
        return {plain_of(key): plain_of(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_of(inner) for inner in value]
    return value.value if isinstance(value, Enum) else str(value) if isinstance(value, str | Path) else value


def validate(model: type[M], data: Mapping[str, Any], positions: Positions, *, hint: str | None = None) -> M:
    """``data`` as ``model``. Raises InputError: every fault as ``p.yaml:3:5: stages.sft.lerning_rate: unknown key``."""
    secret_scan.refuse(data, positions)
    try:
        return model.read(data)
    except ValueError as error:
        raise failure(problems_of(error), positions, hint=hint) from None


_FIELDS: dict[type[StrictModel], dict[str, Field]] = {}


def fields_of(model: type[StrictModel]) -> dict[str, Field]:
    """The keys of a class by their names in it, those of its bases first."""
    if model not in _FIELDS:
        owners = [owner for owner in reversed(model.__mro__) if issubclass(owner, StrictModel)]
        _FIELDS[model] = {name: _field(owner, name) for owner in owners for name in owner.__annotations__}
    return _FIELDS[model]


def _field(owner: type[StrictModel], name: str) -> Field:
    annotation, default = owner.__annotations__[name], vars(owner).get(name, MISSING)
    made = default if isinstance(default, Key) else Key(default)
    return Field(made.alias or name, annotation, _then(_reader(annotation), *filter(None, [made.check])), made)


@cache
def _reader(kind: Any) -> ReadValue:
    """What reads values of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is Literal:
        return _choice({option: option for option in inner})
    if origin is tuple:
        return _tuple(inner[0])
    if origin is dict:
        return _dict(*inner)
    if hasattr(kind, "read"):  # a class of ours
        return kind.read  # type: ignore[no-any-return]
    if issubclass(kind, Enum):
        return _choice({one.value: one for one in kind})
    return _SCALARS[kind]


def _annotated(kind: Any, notes: Iterable[Any]) -> ReadValue:
    tags = [note.key for note in notes if isinstance(note, TaggedBy)]
    read = _tagged(get_args(kind), tags[0]) if tags else _reader(kind)
    whole = _then(read, *(note for note in notes if not isinstance(note, Before | TaggedBy)))
    before = [note.change for note in notes if isinstance(note, Before)]
    return _written_otherwise(before[0], whole) if before else whole


def _then(*steps: ReadValue) -> ReadValue:
    def read(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return read if len(steps) > 1 else steps[0]


def _written_otherwise(change: ReadValue, read: ReadValue) -> ReadValue:
    def changed(value: Any) -> Any:
        try:
            return read(change(value))
        except Faults as error:
            if isinstance(value, Mapping):
                raise
            # The file has none of the keys that the faults are about.
            raise Faults([one._replace(path=()) for one in error.problems]) from None

    return changed


def _union(kinds: Sequence[Any]) -> ReadValue:
    may_be_none = types.NoneType in kinds
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrictModel)]
    others = [_reader(kind) for kind in kinds if kind is not types.NoneType and kind not in models]
    readers = others or [model.read for model in models]

    def read(value: Any) -> Any:
        if value is None and may_be_none:
            return None
        if len(models) == 1 and isinstance(value, Mapping | models[0]):  # all else would say nothing of its keys
            return models[0].read(value)
        problems: list[Problem] = []
        for each in readers:
            try:
                return each(value)
            except ValueError as error:
                problems += problems_of(error)
        raise Faults(problems)

    return read


def _tagged(models: Sequence[type[StrictModel]], name: str) -> ReadValue:
    by_tag = {tag: model for model in models for tag in get_args(model.__annotations__[name])}

    def read(value: Any) -> Any:
        if isinstance(value, tuple(models)):
            return value
        given = _mapping(value)
        if name not in given:
            raise Faults([Problem((), f"the key {name} is required", at_key=True)])
        tag = given[name]
        if not isinstance(tag, str) or tag not in by_tag:
            raise Faults([Problem((name,), f"got {show(tag)}; {suggest(str(tag), list(by_tag))}")])
        return by_tag[tag].read(given)

    return read


def _choice(options: Mapping[Any, Any]) -> ReadValue:
    def read(value: Any) -> Any:
        if isinstance(value, str) and value in options:
            return options[value]
        raise ValueError(f"got {show(value)}; {suggest(str(value), list(options))}")

    return read


def _tuple(kind: Any) -> ReadValue:
    each = _reader(kind)

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, got {show(value)}")
        problems: list[Problem] = []
        found = tuple([_inside(problems, number, each, one) for number, one in enumerate(value)])
        if problems:
            raise Faults(problems)
        return found

    return read


def _dict(name: Any, kind: Any) -> ReadValue:
    of_key, of_value = _reader(name), _reader(kind)

    def read(value: Any) -> Any:
        problems: list[Problem] = []
        found = {}
        for key, one in _mapping(value).items():
            try:
                known = of_key(key)
            except ValueError as error:
                known = key
                problems += [Problem((key,), problem.text, at_key=True) for problem in problems_of(error)]
            found[known] = _inside(problems, key, of_value, one)
        if problems:
            raise Faults(problems)
        return found

    return read


def _inside(problems: list[Problem], part: str | int, read: ReadValue, value: Any) -> Any:
    """The value of a key or item; what is wrong with it is added to ``problems``."""
    try:
        return read(value)
    except ValueError as error:
        problems += [one._replace(path=(part, *one.path)) for one in problems_of(error)]


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping (key: value), got {show(value)}")
    return value


def text(value: Any) -> str:
    """The value, which has to be text."""
    if isinstance(value, int | float):
        written = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f'expected text, got {show(value)}; quote this value: "{written}"')
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {show(value)}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {show(value)}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {show(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"expected a finite number, got {show(value)}")
    return found


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {show(value)}")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError(f"expected a path, got {show(value)}")
    return Path(value)


_SCALARS: dict[Any, ReadValue] = {
    str: text, int: _whole, float: _number, bool: _flag, Path: _path, Any: lambda value: value,
}  # fmt: skip
