"""What to change where a gate shows that training has cost a skill: lines for the pipeline, small changes first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from jobs.core.paths import Workspace
from jobs.core.settings import RATES
from jobs.core.tasks import FOUND, kind_of
from launch.base.errors import InputError
from launch.config.kinds import TRAINING_KINDS
from launch.plan.model import Plan, PlannedStage
from launch.status import results
from launch.status.results import MetricResult

_LOSES = ("may_fall", "may_rise")
_ADAPTERS = ("trl", "nemo", "automodel")
_BY = {"cpt": ("perplexity", "lower"), "sft": ("answers", "lower"), "dpo": ("preferences", "higher")}
_DECIDES = {"perplexity": "perplexity", "answers": "answer_loss", "preferences": "accuracy"}
"""Task -> the metric by which the best save is chosen."""


def of_stage(plan: Plan, stage: PlannedStage, workspace: Workspace) -> tuple[str, ...]:
    """What to write, line by line; empty where the stage shows no loss of a skill, or nothing was trained for it."""
    if stage.produces_kind != "evaluation":
        return ()
    try:
        lost = [one for one in results.of_evaluation(stage, workspace) if _is_lost(one)]
    except InputError:  # a damaged file: ``report`` names it
        return ()
    trained = list(_trained(plan, stage))
    if not lost or not trained:
        return ()
    return tuple(
        line
        for lines in (
            _slower(trained),
            _with_replay(plan, trained),
            _best_save(plan, stage, trained, lost),
            _again(plan, stage, trained),
            _with_adapters(trained),
        )
        for line in lines
    )


def _is_lost(one: MetricResult) -> bool:
    return one.verdict == "missed" and (one.gate or "").startswith(_LOSES)


def _trained(plan: Plan, stage: PlannedStage) -> Iterator[PlannedStage]:
    """The trainings between what the evaluation compares with and what it measures, the newest first."""
    other = stage.inputs.get("compare_to")
    before = "" if other is None else _measured(plan.stage(other.stage))
    name = _measured(stage)
    stages = {one.name: one for one in plan.stages}
    while name in stages and name != before:
        found = stages[name]
        if found.kind in TRAINING_KINDS:
            yield found
        name = next((entry.stage for entry in found.inputs.values() if entry.kind == "checkpoint"), "")


def _measured(stage: PlannedStage) -> str:
    found = stage.inputs.get("checkpoint")
    return "" if found is None else found.stage


def _slower(trained: Iterable[PlannedStage]) -> Iterator[str]:
    lines = []
    for stage in trained:
        lr, least = float(stage.settings["lr"]), RATES[stage.kind][0]
        if lr > least and stage.backend != "toy":
            lines.append(f"  {stage.name}: {{lr: {max(least, lr / 2):.3g}}}  # now {lr:g}")
    if lines:
        yield "a lower learning rate:"
        yield from lines


def _with_replay(plan: Plan, trained: Iterable[PlannedStage]) -> Iterator[str]:
    for stage in trained:
        if stage.kind == "cpt":
            corpus = plan.stage(stage.inputs["data"].stage)
            if not (corpus.settings.get("prepare") or {}).get("replay"):
                yield "general text among the new, as the model knew it before:"
                replay = _flow({"prepare": {"replay": [{"path": "./general", "share": 0.1}]}})
                yield f"  {corpus.name}: {replay}  # a directory of yours"


def _best_save(plan: Plan, stage: PlannedStage, trained: list[PlannedStage], lost: list[MetricResult]) -> Iterator[str]:
    longest = max(trained, key=lambda one: one.target_step or 0)
    if not longest.target_step or longest.settings.get("shard") == "full":
        return
    task, better = _BY[longest.kind]
    every = max(1, longest.target_step // 10)
    tasks = {one.task: _written(one.task, stage.settings["tasks"][one.task]) for one in lost}
    tasks = {task: {"data": longest.inputs["data"].stage}, **tasks}
    bounds = {f"{one.task}.{one.metric}": _rule(stage, one) for one in lost}
    yield "fewer steps: the save that is best while this did not fall, in place of the last:"
    yield f"  {longest.name}: {{save_every: {every}, keep_every: {every}}}"
    yield f"  {longest.name}-curve: {{kind: curve, checkpoints: {longest.name}, tasks: {_flow(tasks)}}}"
    by = _flow({f"{task}.{_DECIDES[task]}": better})
    yield f"  {longest.name}-best: {{kind: choose, from: {longest.name}-curve, by: {by}, subject_to: {_flow(bounds)}}}"
    for other in plan.stages:
        found = other.inputs.get("checkpoint")
        if found is not None and found.stage == longest.name and other.kind in (*TRAINING_KINDS, "evaluate"):
            yield f"  {other.name}: {{checkpoint: {longest.name}-best}}"


def _written(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a task that its writer knows."""
    kind = kind_of(task, given)
    usual = {} if kind is None else {one.name: one.default for one in fields(kind.keys) if one.name not in FOUND}
    return {key: value for key, value in given.items() if key == "task" or (key in usual and value != usual[key])}


def _rule(stage: PlannedStage, one: MetricResult) -> dict[str, Any]:
    gates = stage.settings["gate"]
    found = gates.get(f"{one.task}.{one.metric}") or gates[one.metric]
    return {key: value for key, value in found.items() if key in _LOSES and value is not None}


def _again(plan: Plan, stage: PlannedStage, trained: list[PlannedStage]) -> Iterator[str]:
    last = trained[0]
    pairs = next((one.name for one in plan.stages if one.kind == "instructions"), None)
    if last.kind == "dpo" or pairs is None:
        return
    yield "instructions behind it, which bring back how the model answers:"
    again = {"kind": "sft", "backend": last.backend, "checkpoint": last.name, "data": pairs, "steps": 100}
    yield f"  again: {_flow({**again, 'lr': RATES['sft'][0]})}"
    yield f"  {stage.name}: {{checkpoint: again}}"


def _with_adapters(trained: Iterable[PlannedStage]) -> Iterator[str]:
    lines = [
        f"  {stage.name}: {{options: {{lora_rank: 16}}}}"
        for stage in trained
        if stage.backend in _ADAPTERS and not stage.settings.get("lora_rank")
    ]
    if lines:
        yield "adapters, which move the model less:"
        yield from lines


def _flow(value: Any) -> str:
    """As YAML in one line: JSON is."""
    return json.dumps(value, ensure_ascii=False)
