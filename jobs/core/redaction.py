"""Values of secrets: read where a run keeps them, and taken out of text that we print or keep.

The file is one that bash sources and Python reads: lines ``export NAME='value'``, quoted by ``shlex``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core import strict

SHORTEST = 4
"""Shorter values are left alone: taking each ``1`` out of a log would leave nothing to read."""


def text_of(values: Mapping[str, str]) -> str:
    """The file for bash. Names must be checked before: they are not quoted."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def read(path: Path) -> dict[str, str]:
    """Names and values of a file made by ``text_of``; empty where there is none.

    Raises:
        ValueError: it is not such a file; the message holds nothing of it.
    """
    try:
        words = shlex.split(strict.content(path).decode())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ValueError(f"{path}: torn or not ours") from None
    pairs = [word.partition("=") for word in words if word != "export"]
    if not all(mark for _, mark, _ in pairs):
        raise ValueError(f"{path}: torn or not ours")
    return {name: value for name, _, value in pairs}


class Redactor:
    """Replaces values by ``[NAME]`` in a stream of bytes that may be cut anywhere."""

    def __init__(self, values: Mapping[str, str]) -> None:
        # The longest first: one value may be the beginning of another. Lines of a value are secret each by itself.
        parts = {
            part.encode("utf-8", "surrogateescape"): f"[{name}]".encode()
            for name, value in values.items()
            for part in (value, *value.splitlines())
            if len(part) >= SHORTEST
        }
        self._parts = sorted(parts.items(), key=lambda pair: len(pair[0]), reverse=True)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may be shown so far; the beginning of a value at the end is held back."""
        data = self._replaced(self._held + chunk)
        keep = max((_overlap(data, part) for part, _ in self._parts), default=0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def flush(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held

    def text(self, text: str) -> str:
        """A whole text."""
        data = self._replaced(text.encode("utf-8", "surrogateescape"))
        return data.decode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """A value of JSON."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(inner) for inner in value)
        return value

    def _replaced(self, data: bytes) -> bytes:
        for part, shown in self._parts:
            data = data.replace(part, shown)
        return data


def _overlap(data: bytes, part: bytes) -> int:
    """How many bytes at the end of ``data`` are a beginning of ``part``, but not all of it."""
    for count in range(min(len(part) - 1, len(data)), 0, -1):
        if data.endswith(part[:count]):
            return count
    return 0


def shown(value: Any, path: Path) -> Any:
    """A value of JSON without the secrets that lie in ``path`` (texts, also deep inside). For whatever is about to be
    kept: an error message of a library may quote a token. A file that cannot be read takes nothing out."""
    try:
        redactor = Redactor(read(path))
    except (OSError, ValueError):
        return value
    return redactor.value(value)
