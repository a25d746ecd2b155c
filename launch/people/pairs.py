"""The answers of two models to the same prompts, from the evaluations of a run."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import strict
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.base.text import suggest
from launch.plan.model import Plan, PlannedStage
from launch.status import results


@dataclass(frozen=True)
class Pair:
    """One prompt, what each of the two models answered, and the reference answer of the data."""

    row: str
    asked: str
    answers: tuple[str, str]
    reference: str


def of_run(plan: Plan, workspace: Workspace, names: tuple[str, str], task: str | None) -> list[Pair]:
    """The pairs in which the two answers differ, by row; ``names``: stages that evaluate, or whose model is evaluated.

    Raises:
        InputError: no evaluation of a stage, or no answers to common prompts in them.
    """
    first, second = (_answers(_evaluation(plan, name), workspace, task) for name in names)
    common = [row for row in first if row in second]
    if not common:
        raise InputError(f"the evaluations of {names[0]} and {names[1]} have no prompt in common")
    for row in common:
        if first[row].get("prompt") != second[row].get("prompt"):
            raise InputError(f"{row}: {names[0]} and {names[1]} were asked in different words, or as other tokens")
    return [
        Pair(row, str(one["asked"]), (str(one["hypothesis"]), str(other["hypothesis"])), str(one["reference"]))
        for row in common
        for one, other in [(first[row], second[row])]
        if not is_same(one["hypothesis"], other["hypothesis"])
    ]


def is_same(one: str, other: str) -> bool:
    """Whether a rater sees the same text: the same letters have several forms."""
    return unicodedata.normalize("NFC", one).strip() == unicodedata.normalize("NFC", other).strip()


def _evaluation(plan: Plan, name: str) -> PlannedStage:
    stage = plan.find(name)
    if stage.produces_kind == "evaluation":
        return stage
    found = [
        one
        for one in plan.stages
        if one.produces_kind == "evaluation"
        and (measured := one.inputs.get("checkpoint")) is not None
        and name in _models(plan, measured.stage)
    ]
    if len(found) == 1:
        return found[0]
    said = f"several evaluations measure it: name one of {', '.join(one.name for one in found)}"
    raise InputError(f"stage {name!r}: {said if found else 'no evaluation of this run measures it'}")


def _models(plan: Plan, name: str) -> Iterator[str]:
    """``name``, and the stage whose model it is in another format."""
    yield name
    stage = next((one for one in plan.stages if one.name == name), None)
    if stage is not None and stage.kind == "convert":
        yield from stage.parents


def _answers(stage: PlannedStage, workspace: Workspace, task: str | None) -> dict[str, dict[str, Any]]:
    """Row -> sample of the task that wrote answers."""
    output = results.output_of(stage, workspace)
    if output is None or not (path := output / "samples.jsonl").is_file():
        raise InputError(f"the evaluation {stage.name} has not been made yet", hint="overnight status")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for sample in _samples(path):
        if "hypothesis" in sample and "asked" in sample:
            found.setdefault(sample["task"], {})[sample["id"]] = sample
    if task is not None and task not in found:
        what = suggest(task, list(found)) if found else "none of its tasks writes answers with their prompts"
        raise InputError(f"evaluation {stage.name}: no answers of a task {task!r}; {what}")
    if task is None and len(found) != 1:
        said = f"tasks with answers: {', '.join(found)}; choose with --task" if found else "no task wrote answers"
        raise InputError(f"evaluation {stage.name}: {said}")
    return found[task if task is not None else next(iter(found))]


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield strict.parse(line)
            except ValueError as error:
                raise InputError("not a line of JSON", where=f"{path}:{number}") from error
