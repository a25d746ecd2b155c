"""What is wrong with the judges of a pipeline, and with the tasks that they judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jobs.core.tasks import JUDGED, JudgedKeys, kind_of
from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Problem
from launch.config.judges import JudgeKeys
from launch.config.kinds import FETCHED, MODEL_KINDS, measured
from launch.config.lookups import reference
from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage, GateKeys, MeasuringStage

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
            text = (
                f"{judge.model.key} is not listed in secrets of the pipeline: write secrets: [{judge.model.key}] at top"
            )
            yield Problem((*place, "model", "key"), text)
        if judge.calibrate_on is not None:
            yield from reference(pipeline, (*place, "calibrate_on"), judge.calibrate_on, ("preferences",))
        if judge.price is not None and judge.model.server is None:
            yield Problem(
                (*place, "price"), "is for a server: the cost of a model here is in the estimate", at_key=True
            )


def of_judged(pipeline: Pipeline, name: str, stage: MeasuringStage) -> Iterator[Problem]:
    """Faults of the tasks of a stage that are judged."""
    for task, given in stage.tasks.items():
        kind = kind_of(task, given)
        if kind is None or kind.keys is not JudgedKeys:
            continue
        place: KeyPath = ("stages", name, "tasks", task)
        judge = given.get("judge")
        if not isinstance(judge, str):
            continue  # which is a problem already
        if judge not in pipeline.judges:
            yield Problem((*place, "judge"), f"there is no judge {judge!r}; {suggest(judge, list(pipeline.judges))}")
            continue
        yield from _held_against(pipeline, place, stage, given)
        if isinstance(stage, EvaluateStage):
            yield from _gates(pipeline, name, stage, task, given)


def of_choice(pipeline: Pipeline, name: str, stage: ChooseStage, curve: CurveStage) -> Iterator[Problem]:
    """Faults of a choice by what a judge says."""
    known = measured(curve.tasks)
    judged = pipeline.judged(pipeline.curve_of(name))
    for key, named in (("by", dict.fromkeys(stage.by)), ("subject_to", stage.subject_to)):
        for metric, rule in named.items():
            task = known.get(metric, ("", ""))[0]
            if task not in judged:
                continue
            place: KeyPath = ("stages", name, key, metric)
            judge = judged[task][1]
            held = _is_held_against_earlier(curve, judge, curve.tasks[task])
            if key == "by" and held:
                text = (
                    f"is held against {curve.compare_to} on the validation split, and nothing would say it of the test "
                )
                yield Problem(place, f"{text}split: write against: references in {task} of the curve", at_key=True)
            if rule is not None:
                for gate, text in of_gates(
                    judge, curve.tasks, {metric: rule}, task, curve.compare_to if held else None
                ):
                    yield Problem(("stages", name, key, gate), text, at_key=True)
            elif (lack := _not_told(judge, curve.tasks[task], known[metric][1])) is not None:
                yield Problem(place, lack, at_key=True)


def _is_held_against_earlier(stage: MeasuringStage, judge: JudgeKeys, given: Mapping[str, Any]) -> bool:
    """Whether the answers of a task are held against those of ``compare_to``."""
    return judge.form == "pairwise" and stage.compare_to is not None and given.get("against") != "references"


def _held_against(
    pipeline: Pipeline, place: KeyPath, stage: MeasuringStage, given: dict[str, Any]
) -> Iterator[Problem]:
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
        elif (there := _split(earlier, wanted)) != (own := _split(stage, str(place[-1]))):
            text = (
                f"{wanted} of {stage.compare_to} has answers to the {there} split, and this task asks the {own} split"
            )
            yield Problem(place, f"{text}: write split: {own} there, or against: references here", at_key=True)


def _split(stage: MeasuringStage, task: str) -> str:
    """The split that a task reads."""
    return str(stage.settings()["tasks"][task]["split"])


def _gates(pipeline: Pipeline, name: str, stage: EvaluateStage, task: str, given: dict[str, Any]) -> Iterator[Problem]:
    judge = pipeline.judges[given["judge"]]
    held_against = stage.compare_to if _is_held_against_earlier(stage, judge, given) else None
    for gate, text in of_gates(judge, stage.tasks, stage.gate, task, held_against):
        yield Problem(("stages", name, "gate", gate), text, at_key=True)


def of_gates(
    judge: JudgeKeys,
    tasks: Mapping[str, dict[str, Any]],
    gates: Mapping[str, GateKeys],
    task: str,
    held_against: str | None,
) -> Iterator[tuple[str, str]]:
    """Gates on a task that is judged which could not be decided, and why. ``held_against``: the earlier evaluation
    whose answers the judge sees beside those of the model; None: there is none."""
    known = measured(tasks)
    for gate, rule in gates.items():
        found, metric = known.get(gate, ("", ""))
        if found != task:
            continue
        if (text := _not_told(judge, tasks[task], metric)) is not None:
            yield gate, text
        elif held_against is not None and rule.compares:
            yield gate, f"{metric} is compared with {held_against} already: write at_least: 0.5, or at_most"


def _not_told(judge: JudgeKeys, given: Mapping[str, Any], metric: str) -> str | None:
    """Why a judge does not say a metric of a task in a way that something can follow from it; None: it does."""
    if metric not in JUDGED[judge.form]:
        return f"a judge of the form {judge.form} measures no {metric}; {suggest(metric, list(JUDGED[judge.form]))}"
    if judge.calibrate_on is None:
        text = f"the judge {given['judge']} is not validated: write calibrate_on: NAME of a stage of "
        return f"{text}preferences there, or leave this out"
    return None
