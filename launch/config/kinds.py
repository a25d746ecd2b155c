"""Kinds of stages and what they read, as names: for those who need the names and not the typed stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.core.tasks import kind_of

DATA_KINDS = ("corpus", "instructions", "preferences")
TRAINING_DATA = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}
"""Kind of a training stage -> kind of the data stage that it reads."""
TRAINING_KINDS = tuple(TRAINING_DATA)
MODEL_KINDS = (*TRAINING_KINDS, "choose", "export")
"""Kinds of stages that make a model."""

FETCHED = "base"
"""What ``checkpoint`` says for the fetched base model."""


def measured(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """What a gate may be called (``task.metric``, and ``metric`` where one task alone measures it) -> task and metric,
    for an evaluation of these tasks."""
    pairs = {f"{task}.{metric}": (task, metric) for metric, those in by_metric(tasks).items() for task in those}
    alone = {metric: (those[0], metric) for metric, those in by_metric(tasks).items() if len(those) == 1}
    return {**alone, **pairs}


def by_metric(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Metric -> the tasks that measure it."""
    found: dict[str, list[str]] = {}
    for task, given in tasks.items():
        kind = kind_of(task, given)
        for metric in kind.metrics_of(given) if kind is not None else ():
            found.setdefault(metric, []).append(task)
    return found


def own_metrics(tasks: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The tasks whose metrics the planner finds out: their names alone do not say them."""
    kinds = {task: kind_of(task, given) for task, given in tasks.items()}
    return {task for task, kind in kinds.items() if kind is not None and not kind.metrics_of(tasks[task])}
