"""What the README of a data set of the hub says of its files: configs in its front matter, as the hub reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError

_FRONT = re.compile(r"\A\ufeff?---\r?\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)


def front_matter(content: bytes) -> dict[str, Any]:
    """What stands between the lines ``---`` at the beginning; empty where nothing does that can be read."""
    found = _FRONT.match(content.decode("utf-8", errors="replace"))
    if found is None:
        return {}
    import yaml

    try:
        value = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # a day that no month has; a stranger's nesting
        return {}
    return value if isinstance(value, dict) else {}


def configs(front: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The configs by their names."""
    given = front.get("configs")
    entries = given if isinstance(given, list) else []
    return {str(one.get("config_name", "default")): one for one in entries if isinstance(one, dict)}


def choose(known: Mapping[str, Mapping[str, Any]], wanted: str | None, readme: str) -> str:
    """The config ``wanted``; None: the only one, or the default.

    Raises:
        DataError: there is no such config, or none is the default; says which there are.
    """
    first = next(iter(known))
    defaults = [name for name, one in known.items() if one.get("default") or name == "default"]
    found = wanted or (first if len(known) == 1 else next(iter(defaults), None))
    if found is not None and found in known:
        return found
    said = f"has the configs {', '.join(known)}" + (f", not {found}" if found else "")
    raise DataError(f"{said}: choose one with split: {{config: {first}}}", readme)


def data_files(config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(split, patterns) of ``data_files`` in all forms that the hub knows; without a split it is all for training."""
    value = config.get("data_files")
    if isinstance(value, dict):
        return [(str(split), _listed(paths)) for split, paths in value.items()]
    entries = value if isinstance(value, list) else [] if value is None else [value]
    if entries and all(isinstance(entry, dict) for entry in entries):
        return [(str(entry.get("split", "train")), _listed(entry.get("path"))) for entry in entries]
    return [("train", [str(entry) for entry in entries])] if entries else []


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def files(base: Path, pattern: str, readme: str) -> list[str]:
    """What is there by a pattern.

    Raises:
        DataError: the pattern leaves the directory, or is none.
    """
    try:
        return [os.path.normpath(path) for path in base.glob(pattern.removeprefix("./"))]
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"names {pattern}, which is not a path below it", readme) from error
