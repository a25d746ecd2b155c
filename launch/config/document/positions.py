"""Where a key or a value stands, and the errors that point there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from launch.base.errors import InputError

MAX_SHOWN = 10

KeyPath = tuple[str | int, ...]


class Position(NamedTuple):
    """Where a key or value stands. An option of the command line has no line."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Positions:
    """Positions of keys and values by path, e.g. ``("stages", "cpt", "lr")``; list items have values only. ``texts``:
    the lines of other files that positions are in."""

    file: str
    lines: tuple[str, ...] = ()
    keys: dict[KeyPath, Position] = field(default_factory=dict)
    values: dict[KeyPath, Position] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def key(self, path: KeyPath) -> Position:
        """Position of the key, else of the nearest thing around it that was written."""
        return self.keys.get(path) or self.value(path)

    def value(self, path: KeyPath) -> Position:
        """Position of the value, else of the nearest thing around it that was written."""
        if path in self.values:
            return self.values[path]
        while path:
            path = path[:-1]
            found = self.keys.get(path) or self.values.get(path)
            if found is not None:
                return found
        return Position(self.file)

    def excerpt(self, position: Position) -> str:
        """The source line with a caret under the column; empty where there is none."""
        lines = self.lines if position.file == self.file else self.texts.get(position.file, ())
        if position.line is None or not 0 < position.line <= len(lines):
            return ""
        line, column = lines[position.line - 1], (position.column or 1) - 1
        start = max(0, column - 90)
        shown = "".join(letter if letter.isprintable() else " " for letter in line[start : start + 110])
        number = f"{position.line:>5} | "
        return f"{number}{shown}\n{' ' * (len(number) - 2)}| {' ' * (column - start)}^"


class Document(NamedTuple):
    """A file as read: plain dicts, lists and scalars, and where each stands."""

    data: dict[str, Any]
    positions: Positions


class Problem(NamedTuple):
    """One fault at one path. ``at_key``: the key is wrong, not its value."""

    path: KeyPath
    text: str
    at_key: bool = False


def dotted(path: KeyPath) -> str:
    """``("stages", "cpt", "tasks", 0)`` as ``stages.cpt.tasks[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def failure(problems: Iterable[Problem], positions: Positions, *, hint: str | None = None) -> InputError:
    """One error that lists every problem in the order of the file, each with its line and a caret."""
    placed = [(positions.key(each.path) if each.at_key else positions.value(each.path), each) for each in problems]
    placed.sort(key=lambda pair: (pair[0].file != positions.file, pair[0].file, pair[0].line or 0, pair[0].column or 0))
    blocks = []
    for position, problem in placed[:MAX_SHOWN]:
        name = dotted(problem.path)
        head = f"{name}: {problem.text}" if name else problem.text
        excerpt = positions.excerpt(position)
        blocks.append((position, f"{head}\n{excerpt}" if excerpt else head))
    message = blocks[0][1] + "".join(f"\n{position}: {block}" for position, block in blocks[1:])
    if len(placed) > MAX_SHOWN:
        message += f"\nand {len(placed) - MAX_SHOWN} more"
    return InputError(message, where=str(blocks[0][0]), hint=hint)


@dataclass(frozen=True)
class MarkedFile:
    """A file as read, with all that lies under and over it. ``data`` holds what was written."""

    path: Path
    data: dict[str, Any]
    positions: Positions

    def where(self, *path: str | int) -> str:
        """``file:line:column`` of the value at ``path``, or of what is around it."""
        return str(self.positions.value(path))

    def origin(self, path: KeyPath) -> str | None:
        """``file:line:column`` of the very value at ``path``; None: it is built in."""
        found = self.positions.values.get(path)
        return None if found is None else str(found)

    def error(self, path: KeyPath, text: str, hint: str | None = None) -> InputError:
        """An error about the value at ``path``, for faults that only the planner can see."""
        return failure([Problem(path, text)], self.positions, hint=hint)
