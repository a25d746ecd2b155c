"""What is wrong with the judges of a pipeline, and with the tasks that they judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobs.core.tasks import JUDGED, JudgedKeys, kind_of
from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Problem
from launch.config.kinds import FETCHED, MODEL_KINDS, measured
from launch.config.lookups import reference
from launch.config.measuring import EvaluateStage, MeasuringStage

if TYPE_CHECKING:
    from launch.config.pipeline import Pipeline

ANSWERING = ("translation", "measure", "judge", "transfer")
"""Kinds of tasks whose answers another evaluation can hold its own against."""


def of_judges(pipeline: Pipeline) -> Iterator[Problem]:
    """Faults of ``judges``."""
    for name, judge in pipeline.judges.items():
        place: KeyPath = ("judges", name)
        if judge.model.checkpoint is not None:
            yield from reference(
                pipeline, (*place, "model", "checkpoint"), judge.model.checkpoint, MODEL_KINDS, FETCHED
            )
        if judge.model.key is not None and judge.model.key not in pipeline.secrets:
            text = f"{judge.model.key} is no secret of the pipeline: write secrets: [{judge.model.key}] at its top"
            yield Problem((*place, "model", "key"), text)
        if judge.calibrate_on is not None:
            yield from reference(pipeline, (*place, "calibrate_on"), judge.calibrate_on, ("preferences",))
        if judge.price is not None and judge.model.server is None:
            yield Problem((*place, "price"), "is for a server: what a model costs here, the estimate says", at_key=True)


def of_judged(pipeline: Pipeline, name: str, stage: MeasuringStage) -> Iterator[Problem]:
    """Faults of the tasks of a stage that are judged."""
    for task, given in stage.tasks.items():
        kind = kind_of(task, given)
        if kind is None or kind.keys is not JudgedKeys:
            continue
        place: KeyPath = ("stages", name, "tasks", task)
        judge = given.get("judge")
        if not isinstance(stage, EvaluateStage):
            yield Problem(place, "only an evaluation has a judge: judge one of the models there", at_key=True)
        elif not isinstance(judge, str):
            return  # which is a problem already
        elif judge not in pipeline.judges:
            yield Problem((*place, "judge"), f"there is no judge {judge!r}; {suggest(judge, list(pipeline.judges))}")
        else:
            yield from _held_against(pipeline, place, stage, given)
            yield from _gates(pipeline, name, stage, task, given)


def _held_against(pipeline: Pipeline, place: KeyPath, stage: EvaluateStage, given: dict[str, Any]) -> Iterator[Problem]:
    form, against, answers = pipeline.judges[given["judge"]].form, given.get("against"), given.get("answers")
    earlier = pipeline.stages.get(stage.compare_to or "")
    for key in ("against", "answers") if form == "score" else ():
        if given.get(key) is not None:
            yield Problem((*place, key), "the judge scores answers one by one (form: score): remove it", at_key=True)
    if form == "score":
        return
    if against == "compare_to" and stage.compare_to is None:
        yield Problem((*place, "against"), "the stage has no compare_to: NAME of an evaluation with answers")
    if against == "references":
        if answers is not None:
            yield Problem((*place, "answers"), "is for against: compare_to; remove it", at_key=True)
        return
    if isinstance(earlier, EvaluateStage):
        wanted = str(answers or place[-1])
        able = [one for one, keys in earlier.tasks.items() if (it := kind_of(one, keys)) and it.name in ANSWERING]
        if wanted not in able:
            text = f"{stage.compare_to} has no answers of a task {wanted!r}"
            more = f"; {suggest(wanted, able)} (answers: NAME)" if able else ""
            where = (*place, "answers") if answers else place
            yield Problem(where, f"{text}{more}. Else write against: references", at_key=not answers)


def _gates(pipeline: Pipeline, name: str, stage: EvaluateStage, task: str, given: dict[str, Any]) -> Iterator[Problem]:
    judge, known = pipeline.judges[given["judge"]], measured(stage.tasks)
    compares = stage.compare_to is not None and given.get("against") != "references" and judge.form == "pairwise"
    for gate, rule in stage.gate.items():
        found, metric = known.get(gate, ("", ""))
        place: KeyPath = ("stages", name, "gate", gate)
        if found != task:
            continue
        if metric not in JUDGED[judge.form]:
            text = f"a judge of the form {judge.form} measures no {metric}; {suggest(metric, list(JUDGED[judge.form]))}"
            yield Problem(place, text, at_key=True)
        elif judge.calibrate_on is None:
            text = f"nothing says whether the judge {given['judge']} is right: write calibrate_on: NAME of a stage of "
            yield Problem(place, f"{text}preferences there, or leave the gate out", at_key=True)
        elif compares and rule.compares:
            text = f"{metric} is compared with {stage.compare_to} already: write at_least: 0.5, or at_most"
            yield Problem(place, text, at_key=True)
