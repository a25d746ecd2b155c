"""A file of tasks for an evaluation outside of a pipeline: as an ``evaluate`` stage has them, but data are paths."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.core.tasks import DataKeys, JudgedKeys, kind_of
from launch.base.text import suggest
from launch.config.document.positions import KeyPath, MarkedFile, Problem, failure
from launch.config.document.reader import read
from launch.config.document.typed import StrictModel, key, validate
from launch.config.fields import Count, Line, Slug
from launch.config.judge_references import of_gates
from launch.config.judges import JudgeKeys
from launch.config.kinds import measured
from launch.config.measuring import GateKeys, Tasks, settings_of
from launch.config.references import of_task

MODEL = "the model of --against"
"""What the answers of the other model are said to be of."""


class TasksFileKeys(StrictModel):
    """``tasks``, the ``judges`` of them (their models and known pairs are paths, too), and what an evaluation can be
    told beside."""

    tasks: Tasks
    judges: dict[Slug, JudgeKeys] = key(default_factory=dict)
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
        """What the job side is asked: settings, and the paths of data and of the models of judges by what they are
        called there.

        Raises:
            InputError: a rubric cannot be read; with the line.
        """
        tasks = settings_of(self.keys.tasks)
        data, models = {}, {}
        for name, task in tasks.items():
            if "data" in task:
                data[name] = str(self._there(task["data"]))
                task["data"] = name
            if "judge" in task:
                task["judged_by"] = self._judged_by(task["judge"])
        for name, judge in self.keys.judges.items():
            if judge.calibrate_on is not None:
                data[_known(name)] = str(self._there(judge.calibrate_on))
            if judge.model.checkpoint is not None:
                models[name] = str(self._there(judge.model.checkpoint))
        plain = self.keys.plain()
        rules = {name: rule.settings() for name, rule in self.keys.gate.items()}
        settings = {key: plain[key] for key in ("missed", "undecided", "seed", "threads")}
        settings |= {**plain["options"], "tasks": tasks, "gate": rules}
        return {"settings": settings, "data": data, "judges": models}

    def _there(self, text: str) -> Path:
        return _there(self.path, text)

    def _judged_by(self, name: str) -> dict[str, Any]:
        judge = self.keys.judges[name]
        found = judge.settings()
        if judge.calibrate_on is not None:
            found["calibrate_on"] = _known(name)
        if judge.rubric is not None:
            try:
                found["rubric"] = self._there(judge.rubric).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                text = f"{judge.rubric}: cannot be read: {error}"
                raise failure([Problem(("judges", name, "rubric"), text)], self.positions) from error
        return found


def _there(path: Path, text: str) -> Path:
    return (path.parent / Path(text).expanduser()).resolve()


def _known(judge: str) -> str:
    """What the pairs are called by which a judge is measured; no task can be called so, as it is no name of a file."""
    return f"known:{judge}"


def read_tasks(path: Path, *, compares: bool = False) -> TasksFile:
    """The tasks in a file. ``compares``: there is another model whose answers can be held against those of the first.
    Raises InputError: every fault, with lines."""
    document = read(path)
    data, positions = document.data, document.positions
    keys = validate(TasksFileKeys, data, positions)
    problems = [*_problems(path, keys), *_of_judges(path, keys, compares)]
    if problems:
        raise failure(problems, positions)
    return TasksFile(path, data, positions, keys)


def _problems(path: Path, keys: TasksFileKeys) -> Iterator[Problem]:
    for name, given in keys.tasks.items():
        yield from of_task(("tasks", name), given)
        kind = kind_of(name, given)
        if kind is None or not issubclass(kind.keys, DataKeys):
            continue
        data = given.get("data")
        if not isinstance(data, str):
            text = f"which rows? write data: PATH, a file of {kind.reads} or a directory with test.jsonl"
            yield Problem(("tasks", name), text, at_key=True)
        elif not _there(path, data).exists():
            yield Problem(("tasks", name, "data"), f"there is no {data}")
    known = measured(keys.tasks)
    for gate in keys.gate:
        if gate not in known:
            yield Problem(("gate", gate), f"no task measures {gate!r}", at_key=True)


def _of_judges(path: Path, keys: TasksFileKeys, compares: bool) -> Iterator[Problem]:
    for name, judge in keys.judges.items():
        place: KeyPath = ("judges", name)
        if judge.model.base is not None:
            yield Problem((*place, "model", "base"), "is for a pipeline: write checkpoint: PATH of a model")
        if judge.price is not None:
            yield Problem((*place, "price"), "is for the plan of a pipeline: remove it", at_key=True)
        for key_path, text in (
            (("model", "checkpoint"), judge.model.checkpoint),
            (("calibrate_on",), judge.calibrate_on),
        ):
            if text is not None and not _there(path, text).exists():
                yield Problem((*place, *key_path), f"there is no {text}")
    for name, given in keys.tasks.items():
        kind = kind_of(name, given)
        if kind is None or kind.keys is not JudgedKeys or not isinstance(judge_name := given.get("judge"), str):
            continue
        place = ("tasks", name)
        if judge_name not in keys.judges:
            text = f"there is no judge {judge_name!r}; {suggest(judge_name, list(keys.judges))}"
            yield Problem((*place, "judge"), text)
            continue
        if given.get("answers") is not None:
            yield Problem((*place, "answers"), "is for compare_to of a pipeline: remove it", at_key=True)
        against = given.get("against")
        if against == "compare_to" and not compares:
            yield Problem((*place, "against"), "there is no other model: add --against CHECKPOINT to the command")
        judge = keys.judges[judge_name]
        held_against = MODEL if compares and against != "references" and judge.form == "pairwise" else None
        for gate, text in of_gates(judge, keys.tasks, keys.gate, name, held_against):
            yield Problem(("gate", gate), text, at_key=True)
