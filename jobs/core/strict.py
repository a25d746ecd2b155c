"""The one reader of files that our own processes wrote: what is damaged or hostile is a ``ValueError``, nothing else.

Claims, attempts, verdicts, seals, specs, plans and lines of journals go through here. A file that a disk, an editor or
a stranger has changed must be named, never end in a traceback, and never be taken for something it does not say.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import sys
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST = 2**63 - 1
"""Of any whole number that we write."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"says {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, is nested too deeply, or says a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def read(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or no file; the message names the path.
        OSError: it cannot be read now.
    """
    found = content(path)
    try:
        return parse(found)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def content(path: Path) -> bytes:
    """All of a file of ours. Raises as ``open_file``."""
    handle = _opened(path)
    try:
        found, size = [], os.fstat(handle).st_size + 1
        while part := os.read(handle, size):
            found.append(part)
        return b"".join(found)
    finally:
        os.close(handle)


def open_file(path: Path) -> BinaryIO:
    """A file of ours, to read: not a directory, a link to itself, or a pipe on whose other side nobody writes.

    Raises:
        FileNotFoundError, OSError: as ``open``.
        ValueError: it is no file.
    """
    return os.fdopen(_opened(path), "rb")


def open_if_there(path: Path) -> BinaryIO | None:
    """As ``open_file``; None where the file is missing, or no file that can be read, which is told."""
    try:
        return open_file(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        passed_over(error)
        return None


def _opened(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ValueError(f"{path}: not a file: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path}: not a file")
    return handle


def build(cls: type[T], value: Any) -> T:
    """An instance of a dataclass from parsed JSON: every name known, every value of the annotated type.

    Raises:
        ValueError: naming the first that is not.
    """
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {type(value).__name__}")
    kinds, required = shape(cast(Any, cls))
    for name in value:
        if name not in kinds:
            raise ValueError(f"has an unknown key {name!r}")
    for name in required:
        if name not in value:
            raise ValueError(f"lacks {name!r}")
    return cls(**{name: _converter(kinds[name])(entry, name) for name, entry in value.items()})


@cache
def shape(cls: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The types of a dataclass's fields, and the fields without a default."""
    hints = get_type_hints(cls)
    known = fields(cls)
    required = tuple(one.name for one in known if one.default is MISSING and one.default_factory is MISSING)
    return {one.name: hints[one.name] for one in known}, required


def convert(kind: Any, value: Any, name: str) -> Any:
    """``value`` as the annotated type ``kind``.

    Raises:
        ValueError: it is of another type, or no number, text or choice that we write.
    """
    return _converter(kind)(value, name)


@cache
def _converter(kind: Any) -> Callable[[Any, str], Any]:
    """``convert`` for one type: what it is made of is looked up once, not for each value of 100,000 seals."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        some, may_be_none = _converter(inner[0]), type(None) in inner
        return lambda value, name: None if value is None and may_be_none else some(value, name)
    if origin is tuple:
        each = _converter(inner[0])
        return lambda value, name: tuple([each(one, name) for one in _of((list, tuple), value, name)])
    if origin is dict:
        entry = _converter(inner[1])
        return lambda value, name: {_text(key, name): entry(one, name) for key, one in _of(dict, value, name).items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return lambda value, name: value if isinstance(value, kind) else build(kind, value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value, name: kind(_of(str, value, name))
    return _SCALARS.get(kind, lambda value, name: value)


_WORDS: dict[Any, str] = {str: "a text", bool: "true or false", dict: "an object", (list, tuple): "a list"}


def _of(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {_WORDS[kind]}, not {repr(value)[:40]}")
    return value


def _text(value: Any, name: str) -> str:
    text: str = _of(str, value, name)
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None
    return text


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
        raise ValueError(f"{name} must be a whole number below 2^63, not {repr(value)[:40]}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {repr(value)[:40]}")
    if not isinstance(value, float):
        return float(_whole(value, name))
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return value


_SCALARS: dict[type, Callable[[Any, str], Any]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: lambda value, name: _of(bool, value, name),
}

_told: set[str] = set()


def passed_over(problem: object) -> None:
    """Say once, on stderr, which file was damaged: what the others prove still counts."""
    text = str(problem)
    if text not in _told:
        _told.add(text)
        print(f"overnight: damaged, passed over: {text}", file=sys.stderr, flush=True)
