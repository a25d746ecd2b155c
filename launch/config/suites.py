"""Suites: files of evaluation tasks with their sources, which a pipeline includes by name (``tasks: {suite: safety}``).

What the pipeline says of a task or source of the same name stands above what the suite says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.base.text import suggest
from launch.config.document.layers import moved, overlay
from launch.config.document.positions import Document, KeyPath, Problem, failure
from launch.config.document.reader import read
from launch.inputs.toolkit import package_directory

KEY = "suite"
_PARTS = ("sources", "tasks")


def expand(document: Document, directory: Path) -> Document:
    """A pipeline with the tasks and sources of the suites that it names; paths are below ``directory``. Raises
    InputError: no such suite, or one that is malformed; with the line."""
    found = Document(copy.deepcopy(document.data), document.positions)
    for place, names in named(found.data):
        for name in names:
            try:
                path = locate(name, directory)
                suite = read(path)
            except InputError as error:
                if error.where is not None:
                    raise
                raise failure([Problem(place, error.message)], found.positions, hint=error.hint) from error
            found = overlay(_below(suite, place[:-1]), found)
    for place, _ in named(found.data):
        del found.data["stages"][place[1]]["tasks"][KEY]
    return found


def locate(name: str, directory: Path) -> Path:
    """The file of a suite: a path, or the name of a packaged one. Raises InputError: there is none."""
    if is_path(name):
        return directory / Path(name).expanduser()
    packaged = {path.stem: path for path in sorted(package_directory("suites").glob("*.yaml"))}
    if name not in packaged:
        near = suggest(name, [*packaged])
        raise InputError(f"there is no suite {name!r}, and a path has a / or ends with .yaml; {near}")
    return packaged[name]


def is_path(name: str) -> bool:
    """Whether a suite is named by the path of its file."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def named(data: dict[str, Any]) -> Iterator[tuple[KeyPath, list[str]]]:
    """Where suites are named, and their names."""
    stages = data.get("stages")
    for name, stage in list(stages.items()) if isinstance(stages, dict) else []:
        tasks = stage.get("tasks") if isinstance(stage, dict) else None
        given = tasks.get(KEY) if isinstance(tasks, dict) else None
        names = [given] if isinstance(given, str) else given
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            yield ("stages", name, "tasks", KEY), names


def _below(suite: Document, tasks: KeyPath) -> Document:
    """A suite as the part of a pipeline that it stands for. Raises InputError: it has other keys."""
    wrong = [
        Problem((key,), f"unknown key of a suite; it has {' and '.join(_PARTS)}", at_key=True)
        for key in suite.data
        if key not in _PARTS
    ]
    if wrong or not isinstance(suite.data.get("tasks"), dict):
        raise failure(wrong or [Problem(("tasks",), "expected a mapping (key: value)")], suite.positions)
    _, stage, _ = tasks
    data = {"stages": {stage: {"tasks": suite.data["tasks"]}}, "sources": suite.data.get("sources", {})}
    marks = moved(suite.positions, ("tasks",), tasks)
    sources = moved(suite.positions, ("sources",), ("sources",))
    marks.keys.update(sources.keys)
    marks.values.update(sources.values)
    return Document(data, marks)
