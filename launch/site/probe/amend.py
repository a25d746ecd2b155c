"""Change single values of a profile's file: the lines that are not meant, and all comments, stay as they are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from jobs.core.files import write_atomic
from launch.base.errors import InputError
from launch.config.profile_file import read_profile
from launch.site.write import scalar

MARK = "# tested:"
"""Begins the one comment that ``overnight profile test`` keeps up to date."""


@dataclass(frozen=True)
class ProfileChange:
    """``value`` is YAML, on one line."""

    path: tuple[str, ...]
    value: str
    why: str


def amended(text: str, changes: Sequence[ProfileChange], tested: str) -> str:
    """The text with the changes, each with its reason, and the note of when it was tested. Raises InputError: a value
    cannot be changed alone (an alias, a list)."""
    for change in changes:
        text = _changed(text, change)
    lines = [line for line in text.splitlines() if not line.startswith(MARK)]
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join([*lines, f"{MARK} {tested}"]) + "\n"


def diff(old: str, new: str, path: Path) -> str:
    """Unified, without lines around."""
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path), str(path), n=0))


def write(path: Path, text: str) -> None:
    """Replace the file once the text reads as a profile of that place: ``extends`` may be a path beside it."""
    read_profile(path, text=text)
    write_atomic(path, text, mode=path.stat().st_mode & 0o777)


def _changed(text: str, change: ProfileChange) -> str:
    root = yaml.compose(text)
    if root is not None and not isinstance(root, MappingNode):
        raise InputError("the profile is not a mapping")
    node: Node | None = root
    for depth, key in enumerate(change.path):
        if not isinstance(node, MappingNode):
            raise InputError(f"{'.'.join(change.path[:depth])} is not a mapping in this file")
        child = next((value for name, value in node.value if name.value == key), None)
        if child is None:
            return _inserted(text, node, change, depth)
        node = child
    if not isinstance(node, ScalarNode) or node.start_mark.line != node.end_mark.line:
        raise InputError(f"{'.'.join(change.path)} is not a single value in this file")
    return _replaced(text, node, change)


def _replaced(text: str, node: ScalarNode, change: ProfileChange) -> str:
    """The value, and the comment on its line, which describes the old one."""
    end = text.find("\n", node.end_mark.index)
    end = len(text) if end < 0 else end
    rest = text[node.end_mark.index : end]
    comment = rest.lstrip().startswith("#") or not rest.strip()
    behind = f"  # {change.why}" if comment else rest
    return text[: node.start_mark.index] + change.value + behind + text[end:]


def _inserted(text: str, parent: MappingNode | None, change: ProfileChange, depth: int) -> str:
    """The missing keys, into the mapping that is there, or at the end of the file."""
    missing = change.path[depth:]
    inline = change.value
    for key in reversed(missing[1:]):
        inline = f"{{{scalar(key)}: {inline}}}"
    entry = f"{scalar(missing[0])}: {inline}"
    if parent is None or depth == 0:
        return f"{text.rstrip()}\n{entry}  # {change.why}\n" if text.strip() else f"{entry}  # {change.why}\n"
    if parent.flow_style:
        place = parent.end_mark.index - 1
        before = text[:place].rstrip()
        return f"{before}{', ' if parent.value else ''}{entry}{text[place:]}"
    key, last = parent.value[-1]
    indent = " " * key.start_mark.column
    # What is written in block style ends where the next thing begins, behind blank lines and comments.
    on_its_line = last.style not in ("|", ">") if isinstance(last, ScalarNode) else last.flow_style
    place = last.end_mark.index if on_its_line else _last_line(text, last.end_mark.index)
    line_end = text.find("\n", place)
    line_end = len(text) if line_end < 0 else line_end
    return f"{text[:line_end]}\n{indent}{entry}  # {change.why}{text[line_end:]}"


def _last_line(text: str, place: int) -> int:
    """A place in the last line before ``place`` that holds more than a comment."""
    while place > 0:
        start = text.rfind("\n", 0, place - 1) + 1
        line = text[start:place].strip()
        if line and not line.startswith("#"):
            return start
        place = start
    return 0
