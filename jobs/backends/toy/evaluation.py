"""Evaluation by the toy model: the loss per character of each task's rows, of one model or of all saves; gates on it.

Gates are judged as everywhere (``jobs.evaluate.gates``). What they look at, the loss or the perplexity, comes from a
bootstrap in plain Python: this back end runs where numpy is not installed.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from statistics import fmean, stdev
from typing import Any

from jobs.backends import load
from jobs.backends.toy import model
from jobs.core import files, results
from jobs.core.power import CHANCE
from jobs.core.spec import StageSpec
from jobs.evaluate import gates
from jobs.evaluate.gates import GateRule
from jobs.evaluate.kept import SAMPLES
from jobs.evaluate.observed import FEWEST, MetricEstimate, Observed, shown
from jobs.training import examples, points
from jobs.training.interface import Result, WorkContext
from jobs.training.settings import BadSettings

OF_LOSS = {"loss": float, "perplexity": math.exp}
"""What gates may be on, from the mean loss."""

RESAMPLES = 2000

LossesOfTasks = Mapping[str, Mapping[str, float]]
"""Task -> row -> loss."""


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Measure the input ``checkpoint``, or its saves (a curve), or take the best of them (a choice)."""
    if "choose" in spec.settings:
        return _choose(spec, ctx)
    if "curve" in spec.settings:
        return _curve(spec, ctx)
    losses: dict[str, dict[str, float]] = {}
    tasks = sorted(spec.settings.get("tasks", {}).items())
    with open(ctx.output / SAMPLES, "w", encoding="utf-8") as stream:
        for step, (task, wanted) in enumerate(tasks, start=1):
            losses[task] = dict(_losses(spec, wanted, model.start_scores(spec.inputs["checkpoint"])))
            own = losses[task].items()
            stream.writelines(json.dumps({"task": task, "id": name, "loss": it}) + "\n" for name, it in own)
            ctx.progress.report(step, len(tasks), task)
    summary = {task: _summary(spec, own) for task, own in losses.items()}
    judged = _judged(spec, losses, _earlier(spec), summary)
    where = results.write(ctx.output, summary)
    gates.apply(judged, spec.settings.get("missed", "stop"), spec.settings.get("undecided", "stop"), str(where))
    return Result("done", metrics=_values(summary))


def check(spec: StageSpec) -> None:
    """Refuse what would be asked of a model of characters in vain.

    Raises:
        BadSettings: a gate on something else than the loss or the perplexity, or without an earlier evaluation where it
            needs one; a choice under conditions.
    """
    if spec.settings.get("choose", {}).get("subject_to"):
        raise BadSettings("the toy back end chooses by the loss alone: leave subject_to out")
    for name, given in spec.settings.get("gate", {}).items():
        _gate(spec, name)
        if GateRule.read(name, given).compares and "compare_to" not in spec.inputs:
            raise BadSettings(f"gate {name!r} needs compare_to, an earlier evaluation")


def _gate(spec: StageSpec, name: str) -> tuple[str, str]:
    """Task and metric of a gate."""
    tasks = spec.settings.get("tasks", {})
    found = [(task, metric) for task in tasks for metric in OF_LOSS if name in (metric, f"{task}.{metric}")]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{task}.{metric}" for task in tasks for metric in OF_LOSS)
    raise BadSettings(f"gate {name!r}: the toy back end measures {names}: write one of them")


def _earlier(spec: StageSpec) -> LossesOfTasks:
    found: dict[str, dict[str, float]] = {}
    if (other := spec.inputs.get("compare_to")) is not None:
        for row in files.read_json_lines(other.output / SAMPLES):
            found.setdefault(row["task"], {})[row["id"]] = row["loss"]
    return found


def _judged(
    spec: StageSpec, losses: LossesOfTasks, earlier: LossesOfTasks, summary: Mapping[str, Any]
) -> dict[str, tuple[gates.Judgement, str]]:
    """Gate -> judgement, and what it looked at as text; both stand in ``summary`` afterwards."""
    rules = {name: GateRule.read(name, given) for name, given in spec.settings.get("gate", {}).items()}
    places = {name: _gate(spec, name) for name in rules}
    seen = {}
    for name, rule in rules.items():
        task, metric = places[name]
        now, old = losses[task], earlier.get(task, {})
        pairs = (
            [(old[row], now[row]) for row in now if row in old] if rule.compares else [(0.0, it) for it in now.values()]
        )
        if not pairs:
            raise BadSettings(f"gate {name!r} ({rule}): the two evaluations have no example of {task} in common")
        seen[name] = _observed(pairs, metric, rule.compares, spec.settings.get("seed", 0))
    judged = {}
    for name, one in gates.judge(rules, seen).items():
        task, metric = places[name]
        observed, before = seen[name]
        metrics = summary[task]["metrics"]
        numbers = metrics.setdefault(metric, _of_mean(metrics["loss"], metric))
        if rules[name].compares:
            numbers |= {"before": before, "change": asdict(observed.estimate)}
        numbers["gate"] = asdict(one)
        judged[name] = one, shown(observed.estimate, before if rules[name].compares else None)
    return judged


def _observed(pairs: Sequence[tuple[float, float]], metric: str, compares: bool, seed: int) -> tuple[Observed, float]:
    """A metric of the second of each pair, or how far it is from that of the first; and the metric of the first."""
    of = OF_LOSS[metric]

    def value(some: Sequence[tuple[float, float]]) -> float:
        after = of(fmean(pair[1] for pair in some))
        return after - of(fmean(pair[0] for pair in some)) if compares else after

    rng = random.Random(seed)
    draws = sorted(value(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    known = len(pairs) >= FEWEST
    low, high = draws[int(CHANCE * RESAMPLES)], draws[-1 - int(CHANCE * RESAMPLES)]
    estimate = MetricEstimate(
        value(pairs),
        low if known else None,
        high if known else None,
        len(pairs),
        len(pairs),
        "bootstrap",
        stdev(draws) * math.sqrt(len(pairs)),
    )

    def share(those: Sequence[bool]) -> float:
        return (sum(those) + 1) / (RESAMPLES + 1)

    observed = Observed(
        estimate,
        lambda at: share([one <= at for one in draws]),
        lambda at: share([one >= at for one in draws]),
    )
    return observed, of(fmean(pair[0] for pair in pairs))


def _of_mean(loss: Mapping[str, float], metric: str) -> dict[str, Any]:
    of = OF_LOSS[metric]
    return {**{key: of(loss[key]) for key in ("value", "low", "high")}, "n": loss["n"], "higher_is_better": False}


def _curve(spec: StageSpec, ctx: WorkContext) -> Result:
    found = points.points(spec)
    shown: list[dict[str, Any]] = []
    for number, point in enumerate(found, start=1):
        scores = model.start_scores(spec.inputs["source"])
        if point.step:
            scores = model.scores_of(points.model_of(spec, point, ctx.saves.directory / "model", load))
        tasks = {
            task: _summary(spec, dict(_losses(spec, wanted, scores))) for task, wanted in spec.settings["tasks"].items()
        }
        shown.append({"step": point.step, "tasks": tasks})
        ctx.progress.report(number, len(found), f"step {point.step}")
    results.write(ctx.output, shown[-1]["tasks"], curve={"of": spec.inputs["checkpoint"].stage, "points": shown})
    return Result("done", metrics=_values(shown[-1]["tasks"]))


def _choose(spec: StageSpec, ctx: WorkContext) -> Result:
    """The model with the least loss of the first task."""
    drawn = results.read_points(spec.inputs["curve"].output / results.FILE)
    task = min(spec.settings["tasks"])
    losses = {step: tasks[task]["metrics"]["loss"]["value"] for step, tasks in drawn.items() if step}
    best = min(losses, key=lambda step: (losses[step], step))
    point = next(one for one in points.points(spec) if one.step == best)
    made = points.model_of(spec, point, ctx.saves.directory / "model", load)
    shutil.copyfile(made / model.MODEL_FILE, ctx.output / model.MODEL_FILE)
    chosen = {"step": best, "value": losses[best], "content": point.content}
    files.write_json(ctx.output / "choice.json", chosen)
    return Result("done", best, {"chosen": chosen})


def _losses(spec: StageSpec, wanted: Mapping[str, Any], scores: model.Scores) -> Iterator[tuple[str, float]]:
    given = spec.inputs[wanted["data"]]
    rows = examples.read_rows(given.output / f"{wanted.get('split', 'test')}.jsonl", given.format)
    for row in islice(rows, wanted.get("limit")):
        chain = model.encode(row.texts.get("text") or row.texts.get("completion") or row.texts["chosen"])
        yield row.id, -model.log_likelihood(chain, scores)[0] / max(len(chain) - 1, 1)


def _summary(spec: StageSpec, losses: Mapping[str, float]) -> dict[str, Any]:
    return {"metrics": {"loss": _with_interval([*losses.values()], spec.settings.get("seed", 0))}}


def _values(summary: Mapping[str, Any]) -> dict[str, float]:
    return {f"{task}.loss": found["metrics"]["loss"]["value"] for task, found in summary.items()}


def _with_interval(losses: list[float], seed: int, resamples: int = 200) -> dict[str, Any]:
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(losses, k=len(losses))) / len(losses) for _ in range(resamples))
    low, high = means[int(0.025 * resamples)], means[int(0.975 * resamples)]
    mean = sum(losses) / len(losses)
    return {"value": mean, "low": low, "high": high, "n": len(losses), "higher_is_better": False}
