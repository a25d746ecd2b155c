"""The choice of one model of a curve, by what was measured on the validation split; and what the test split says of it.

The best of several looks better than it is: part of its lead is luck of the examples that chose it. So it is measured
again on examples that had no part in the choice, and both numbers are reported.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.core import files, winner
from jobs.core.spec import StageSpec
from jobs.core.tasks import JudgedKeys
from jobs.evaluate import compare, curve, lost, session
from jobs.evaluate.gates import GateFailed, GateRule, GateUndecided
from jobs.evaluate.kept import SAMPLES, Samples, read_samples
from jobs.evaluate.kinds.judged import held_against
from jobs.evaluate.observed import MetricEstimate
from jobs.evaluate.settings import EvaluateSettings
from jobs.training.interface import Result, WorkContext
from jobs.training.points import Load, model_of, points

FILE = "choice.json"


@dataclass(frozen=True)
class SaveChoice:
    """``step`` was chosen; ``best`` has the best number, and is ``step`` where no earlier one is as good."""

    step: int
    best: int
    metric: str
    value: float
    points: int
    refused: Mapping[int, str]


def choose(
    samples: Mapping[int, Samples], earlier: Samples | None, settings: EvaluateSettings, how: Mapping[str, Any]
) -> SaveChoice:
    """The best point of a curve, or the earliest whose distance from it is no more than one standard error of that
    distance, over the same examples.

    ``earlier``: what ``subject_to`` is against; None: step 0 of the curve.

    Raises:
        GateFailed, GateUndecided: no point keeps to ``subject_to``; with what each one lacks. Or what would choose is
            not believed.
    """
    [(name, direction)] = how["by"].items()
    rules = {metric: GateRule.read(metric, rule) for metric, rule in how.get("subject_to", {}).items()}
    settings = replace(settings, gate=rules)
    against = earlier if earlier is not None else samples.get(0)
    compare.check_gate(settings, against)
    task, metric = compare.metric_of(name, settings)
    allowed, refused, missed = [], {}, 0
    for step in curve.steps_of(samples):
        count, among = lost.of_metric(settings.tasks[task], metric, samples[step][task])
        if count > compare.MOST_PROBLEMS * among:  # what is left may be the easy ones
            refused[step] = f"{task}.{metric}: {count} of {among} examples could not be measured"
            continue
        judged = compare.evaluate(samples[step], against, settings).judged
        lacks = {gate: one for gate, one in judged.items() if one.verdict != "passed" and one.tier == "critical"}
        missed += any(one.verdict == "missed" for one in lacks.values())
        if lacks:
            refused[step] = ", ".join(f"{gate} {one.rule}: {one.verdict}" for gate, one in lacks.items())
        else:
            allowed.append(step)
    if not allowed:
        text = "; ".join(f"step {step}: {lack}" for step, lack in refused.items())
        error = GateFailed if missed == len(refused) else GateUndecided
        raise error(f"no save keeps to subject_to: {text}")
    sign = 1 if direction == "lower" else -1
    plain = replace(settings, gate={})
    values = {step: _value(samples[step], plain, task, metric) for step in allowed}
    best = min(allowed, key=lambda step: (sign * values[step], step))
    if doubt := _doubt(samples[best], plain, task):
        raise GateUndecided(f"no save is chosen by {task}.{metric}: {doubt}")
    chosen = next(one for one in allowed if one == best or _is_as_good(samples, one, best, plain, task, metric, sign))
    return SaveChoice(chosen, best, f"{task}.{metric}", values[chosen], len(values) + len(refused), refused)


def _doubt(samples: Samples, settings: EvaluateSettings, task: str) -> str | None:
    """Why nothing is chosen by what a task measures, such as a judge that is not believed."""
    of = settings.tasks[task]
    found = compare.evaluate({task: samples[task]}, None, replace(settings, tasks={task: of})).tasks[task]
    return of.kind.doubt(of, {name: one.now.estimate for name, one in found.items()})


def _value(samples: Samples, settings: EvaluateSettings, task: str, metric: str) -> float:
    of = settings.tasks[task]
    able = [of.kind.statistics(of.keys, one) for one in samples[task] if "problem" not in one]
    columns = np.array(able, dtype=np.float64).sum(axis=0)
    return float(of.metrics[metric].of(columns))


def _is_as_good(
    samples: Mapping[int, Samples], step: int, best: int, settings: EvaluateSettings, task: str, metric: str, sign: int
) -> bool:
    only = replace(settings, tasks={task: settings.tasks[task]})
    found = compare.evaluate({task: samples[step][task]}, {task: samples[best][task]}, only)
    change = found.tasks[task][metric].change
    assert change is not None
    one = change.estimate
    return one.deviation is not None and sign * one.value <= one.deviation / math.sqrt(one.groups)


def run(spec: StageSpec, ctx: WorkContext, load: Load) -> Result:
    """Make the chosen model the output, and measure it on the test split; called on every rank.

    Raises:
        BadSettings, DataError: before the model runs.
        GateFailed, GateUndecided: no save keeps to the conditions.
    """
    settings = curve.settings_of(spec)
    samples = curve.samples_of(spec.inputs["curve"].output)
    other = spec.inputs.get("compare_to")
    earlier = read_samples(other.output / SAMPLES) if other else None
    found = choose(samples, earlier, settings, spec.settings["choose"])
    point = next(one for one in points(spec) if one.step == found.step)
    scratch = ctx.saves.directory / f"model-{ctx.rank}"
    model = model_of(spec, point, scratch, load)

    again = _measured_again(settings, spec)
    rows = session.chosen_rows(spec, again)
    judges = session.judges_of(spec, again, ctx)
    loaded = replace(session.load(model, spec, again), judges=judges)
    work = session.EvaluationSession(spec, ctx, session.prepared(again, rows, loaded), [found.step])
    is_through = work.end(work.measure(found.step))
    if not is_through or ctx.rank:
        return Result("done" if is_through else "stopped", found.step if is_through else work.rows)
    measured = compare.evaluate(work.samples(found.step), None, again)
    task, metric = found.metric.split(".", 1)
    test = measured.tasks[task][metric].now.estimate if hasattr(settings.tasks[task].keys, "split") else None
    told = {**asdict(found), "content": point.content, "test": None if test is None else asdict(test)}
    line = said(found, test)
    _copy(model, ctx.output)
    shutil.rmtree(scratch, ignore_errors=True)
    tasks = compare.as_json(measured, {one.name: one.how for one in work.tasks}, again)
    files.write_json(ctx.output / FILE, {**told, "said": line, "tasks": tasks})
    return Result("done", found.step, {"chosen": told, "said": line})


def _measured_again(settings: EvaluateSettings, spec: StageSpec) -> EvaluateSettings:
    """The tasks on the test split, without those whose answers are held against others, which are of another split.
    A task that has no splits, as of a benchmark, has the same rows again."""
    tasks = {
        name: task
        for name, task in settings.tasks.items()
        if not (isinstance(task.keys, JudgedKeys) and held_against(task.keys, spec.inputs) == "compare_to")
    }
    return curve.on_split(replace(settings, tasks=tasks), "test")


def said(found: SaveChoice, test: MetricEstimate | None) -> str:
    """The choice in a line. ``test``: what the test split says; None: the task has no splits."""
    chosen = f"step {found.step} of {found.points} saves"
    if found.best != found.step:
        chosen += f" (as good as step {found.best} within one standard error)"
    if test is None:
        return winner.said(chosen, found.metric, found.value, None, is_split=False)
    return winner.said(chosen, found.metric, found.value, test.value)


def _copy(source: Path, target: Path) -> None:
    """Hard links where the file system has them."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
