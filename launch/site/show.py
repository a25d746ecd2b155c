"""Profiles as they are read: every value with the line that set it, and what there is to choose from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.document.positions import KeyPath
from launch.config.profile_file import ProfileFile, available, user_directory
from launch.inputs.toolkit import package_directory
from launch.site.write import scalar

BUILT_IN = "built in"
_LINK = re.compile(r"https?://[^\s,;)]+")


@dataclass(frozen=True)
class ProfileView:
    """One value. ``origin``: ``file:line:column``, or ``built in``."""

    path: KeyPath
    value: Any
    origin: str

    def as_json(self) -> dict[str, Any]:
        return {"key": ".".join(map(str, self.path)), "value": self.value, "origin": self.origin}


def values(found: ProfileFile) -> list[ProfileView]:
    """All values that are in force, those that nobody has set included."""
    data = found.profile.plain()
    return [ProfileView(path, value, _origin(found, path)) for path, value in _leaves(data, ())]


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif value is not None or path[:1] == ("sbatch",):  # there, nothing is said to take an option away
        yield path, value


def _origin(found: ProfileFile, path: KeyPath) -> str:
    """Of the value itself, or of the text around it that stands for it (``gpu_request: gres``)."""
    data: Any = found.data
    for depth, key in enumerate(path):
        if not isinstance(data, Mapping):
            return found.origin(path[:depth]) or BUILT_IN
        if key not in data:
            return BUILT_IN
        data = data[key]
    return found.origin(path) or f"{found.path}: the name of the file"


def lines(found: ProfileFile, origin: bool) -> list[str]:
    """As YAML that reads as the same profile; with ``origin`` each value's place behind it."""
    result: list[tuple[str, str]] = []
    open_keys: KeyPath = ()
    for one in values(found):
        above = one.path[:-1]
        shared = 0
        while shared < min(len(above), len(open_keys)) and above[shared] == open_keys[shared]:
            shared += 1
        for depth in range(shared, len(above)):
            result.append((f"{'  ' * depth}{scalar(str(above[depth]))}:", ""))
        open_keys = above
        result.append((f"{'  ' * len(above)}{scalar(str(one.path[-1]))}: {_text(one.value)}", one.origin))
    if not origin:
        return [text for text, _ in result]
    width = min(60, max(len(text) for text, place in result if place))
    return [f"{text:{width}}  # {place}" if place else text for text, place in result]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return scalar(value)
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Summary:
    """One profile that can be named. ``whose``: built in, of the site, or yours."""

    name: str
    whose: str
    description: str
    link: str
    path: str


def summaries() -> list[Summary]:
    """Profiles by name, with the first sentence and the first link of the comment at their top."""
    return [_summary(name, path) for name, path in sorted(available().items())]


def packaged() -> dict[str, Path]:
    """Profiles that come with the package."""
    return {path.stem: path for path in package_directory("cluster_profiles").glob("*.yaml")}


def is_packaged(path: Path) -> bool:
    """Whether a profile came with the package, so that it is not the user's to change."""
    return path.resolve().is_relative_to(package_directory("cluster_profiles").resolve())


def _summary(name: str, path: Path) -> Summary:
    whose = "built in" if is_packaged(path) else "yours" if path.parent == user_directory() else "the site"
    comment = []
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.lstrip("#").strip())
    except OSError as error:
        return Summary(name, whose, f"cannot be read: {error.strerror}", "", str(path))
    paragraph = " ".join(comment).split("  ")[0].strip()
    first = re.split(r"(?<=[.;])\s", paragraph, maxsplit=1)[0].rstrip(".;")
    link = _LINK.search(" ".join(comment))
    shown = "".join(letter for letter in first if letter.isprintable())
    return Summary(name, whose, shown, link[0].rstrip(".") if link else "", str(path))
