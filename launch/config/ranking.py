"""What ranks the chains of a sweep: a metric of one of their evaluations, on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.tasks import DataKeys, kind_of
from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Problem
from launch.config.kinds import measured, own_metrics
from launch.config.measuring import EvaluateStage, settings_of

if TYPE_CHECKING:
    from launch.config.pipeline import Pipeline

KNOWN = "trl"
"""The back end whose metrics ``jobs.core.tasks`` tells; others measure what they measure."""


@dataclass(frozen=True)
class Ranking:
    """A ``metric`` of a task of an evaluation. ``test``: the evaluation and the task that measure the same on the test
    split; None: none does. ``has_splits``: whether the task has such splits at all."""

    stage: str
    task: str
    metric: str
    higher: bool | None
    test: tuple[str, str] | None = None
    has_splits: bool = True

    @property
    def name(self) -> str:
        return f"{self.stage}.{self.task}.{self.metric}"


def problems(pipeline: Pipeline) -> Iterator[Problem]:
    """What is wrong with ``sweep: {by: ...}``."""
    try:
        ranking_of(pipeline)
    except ValueError as error:
        assert pipeline.sweep is not None
        place: KeyPath = ("sweep", "by")
        yield Problem(place, str(error))


def ranking_of(pipeline: Pipeline) -> Ranking | None:
    """What ranks; None: the pipeline says nothing. Raises ValueError: there is no such metric, or several."""
    if pipeline.sweep is None or pipeline.sweep.by is None:
        return None
    [(name, direction)] = pipeline.sweep.by.items()
    found = list(_named(pipeline, name))
    if not found:
        raise ValueError(f"no evaluation measures {name!r}; {suggest(name, list(_names(pipeline)))}")
    on_validation = [one for one in found if _split(pipeline, one.stage, one.task) != "test"]
    if not on_validation:
        one = found[0]
        text = "is of the test split, and what is chosen by is not what is reported"
        raise ValueError(
            f"{one.name} {text}: rank by a task with {{split: validation}}, beside this one, such as "
            f"{one.task}-validation: {{task: {_kind(pipeline, one.stage, one.task)}, split: validation}}"
        )
    if len(on_validation) > 1:
        raise ValueError(f"several evaluations measure it: write {' or '.join(one.name for one in on_validation)}")
    return _whole(pipeline, on_validation[0], direction)


def _stages(pipeline: Pipeline) -> Iterator[tuple[str, EvaluateStage]]:
    for name, stage in pipeline.stages.items():
        if isinstance(stage, EvaluateStage):
            yield name, stage


def _evaluation(pipeline: Pipeline, name: str) -> EvaluateStage:
    stage = pipeline.stages[name]
    assert isinstance(stage, EvaluateStage)
    return stage


def _named(pipeline: Pipeline, name: str) -> Iterator[Ranking]:
    """The metrics that ``task.metric`` or ``stage.task.metric`` may mean."""
    for stage, keys in _stages(pipeline):
        known = set(measured(keys.tasks).values())
        for task in keys.tasks:
            for prefix in (f"{task}.", f"{stage}.{task}."):
                metric = name.removeprefix(prefix)
                is_open = keys.backend != KNOWN or task in own_metrics(keys.tasks)
                if metric != name and metric and (is_open or (task, metric) in known):
                    yield Ranking(stage, task, metric, None)


def _names(pipeline: Pipeline) -> dict[str, None]:
    found: dict[str, None] = {}
    for _, keys in _stages(pipeline):
        for task, metric in measured(keys.tasks).values():
            found[f"{task}.{metric}"] = None
    return found


def _kind(pipeline: Pipeline, stage: str, task: str) -> str:
    kind = kind_of(task, _evaluation(pipeline, stage).tasks[task])
    return "" if kind is None else kind.name


def _split(pipeline: Pipeline, stage: str, task: str) -> str | None:
    """The split that a task reads; None: it has none."""
    keys = _evaluation(pipeline, stage)
    kind = kind_of(task, keys.tasks[task])
    if kind is None or not issubclass(kind.keys, DataKeys):
        return None
    return str(keys.tasks[task].get("split", "test"))


def _whole(pipeline: Pipeline, found: Ranking, direction: str | None) -> Ranking:
    """With what is better, and where the same is measured on the test split."""
    keys = _evaluation(pipeline, found.stage)
    kind = kind_of(found.task, keys.tasks[found.task])
    facts = None if kind is None else kind.metrics_of(keys.tasks[found.task]).get(found.metric)
    higher = direction == "higher" if direction is not None else None if facts is None else facts.higher_is_better
    if higher is None:
        raise ValueError(f"is lower or higher better? write {{{found.task}.{found.metric}: lower}} or higher")
    wanted = _without_split(pipeline, found.stage, found.task)
    test = next(
        (
            (stage, task)
            for stage, one in _stages(pipeline)
            for task in one.tasks
            if one.checkpoint == keys.checkpoint
            and _split(pipeline, stage, task) == "test"
            and _without_split(pipeline, stage, task) == wanted
        ),
        None,
    )
    has_splits = _split(pipeline, found.stage, found.task) is not None
    return Ranking(found.stage, found.task, found.metric, higher, test, has_splits)


def _without_split(pipeline: Pipeline, stage: str, task: str) -> object:
    """What a task measures, but for the split that it reads; how many rows of it is left out, too."""
    keys = _evaluation(pipeline, stage)
    settings = settings_of({task: keys.tasks[task]})[task]
    rest = {name: value for name, value in settings.items() if name not in ("split", "limit", "task")}
    rest["data"] = pipeline.task_data(stage).get(task)
    return _kind(pipeline, stage, task), keys.backend, rest
