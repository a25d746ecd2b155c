"""A file of tasks for an evaluation outside of a pipeline: as an ``evaluate`` stage has them, but data are paths."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.core.tasks import DataKeys, JudgedKeys, kind_of
from launch.config.document.positions import MarkedFile, Problem, failure
from launch.config.document.reader import read
from launch.config.document.typed import StrictModel, key, validate
from launch.config.fields import Count, Line
from launch.config.kinds import measured
from launch.config.measuring import GateKeys, Tasks, settings_of
from launch.config.references import of_task


class TasksFileKeys(StrictModel):
    """``tasks``, and what an evaluation can be told beside."""

    tasks: Tasks
    gate: dict[Line, GateKeys] = key(default_factory=dict)
    missed: Literal["stop", "go"] = "stop"
    undecided: Literal["stop", "go"] = "stop"
    seed: int = 1
    threads: Count | None = None
    options: dict[Line, Any] = key(default_factory=dict)


@dataclass(frozen=True)
class TasksFile(MarkedFile):
    """The file, checked."""

    keys: TasksFileKeys

    def asked(self) -> dict[str, Any]:
        """What the job side is asked: settings, and the data by the tasks that read them."""
        tasks = settings_of(self.keys.tasks)
        data = {}
        for name, task in tasks.items():
            if "data" in task:
                data[name] = str((self.path.parent / Path(task["data"]).expanduser()).resolve())
                task["data"] = name
        plain = self.keys.plain()
        rules = {name: rule.settings() for name, rule in self.keys.gate.items()}
        settings = {key: plain[key] for key in ("missed", "undecided", "seed", "threads")}
        return {"settings": {**settings, **plain["options"], "tasks": tasks, "gate": rules}, "data": data}


def read_tasks(path: Path) -> TasksFile:
    """The tasks in a file. Raises InputError: every fault, with lines."""
    document = read(path)
    data, positions = document.data, document.positions
    keys = validate(TasksFileKeys, data, positions)
    problems = [*_problems(path, keys)]
    if problems:
        raise failure(problems, positions)
    return TasksFile(path, data, positions, keys)


def _problems(path: Path, keys: TasksFileKeys) -> Iterator[Problem]:
    for name, given in keys.tasks.items():
        yield from of_task(("tasks", name), given)
        kind = kind_of(name, given)
        if kind is not None and kind.keys is JudgedKeys:
            yield Problem(
                ("tasks", name), "a judge is defined in a pipeline (judges:), with what it is measured on", at_key=True
            )
            continue
        if kind is None or not issubclass(kind.keys, DataKeys):
            continue
        data = given.get("data")
        if not isinstance(data, str):
            text = f"which rows? write data: PATH, a file of {kind.reads} or a directory with test.jsonl"
            yield Problem(("tasks", name), text, at_key=True)
        elif not (path.parent / Path(data).expanduser()).exists():
            yield Problem(("tasks", name, "data"), f"there is no {data}")
    known = measured(keys.tasks)
    for gate in keys.gate:
        if gate not in known:
            yield Problem(("gate", gate), f"no task measures {gate!r}", at_key=True)
