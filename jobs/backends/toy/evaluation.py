"""Evaluation by the toy model: the loss per character of each task's rows, of one model or of all saves."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.backends import load
from jobs.backends.toy import model
from jobs.core import files, results
from jobs.core.spec import StageSpec
from jobs.training import examples, points
from jobs.training.interface import Result, WorkContext


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Measure the input ``checkpoint``, or its saves (a curve), or take the best of them (a choice)."""
    if "choose" in spec.settings:
        return _choose(spec, ctx)
    if "curve" in spec.settings:
        return _curve(spec, ctx)
    with open(ctx.output / "samples.jsonl", "w", encoding="utf-8") as stream:
        summary = {}
        tasks = sorted(spec.settings.get("tasks", {}).items())
        for step, (task, wanted) in enumerate(tasks, start=1):
            losses = dict(_losses(spec, wanted, model.start_scores(spec.inputs["checkpoint"])))
            stream.writelines(json.dumps({"task": task, "id": name, "loss": it}) + "\n" for name, it in losses.items())
            summary[task] = _summary(spec, losses)
            ctx.progress.report(step, len(tasks), task)
    results.write(ctx.output, summary)
    return Result("done", metrics=_values(summary))


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
    for row in examples.read_rows(given.output / f"{wanted.get('split', 'test')}.jsonl", given.format):
        chain = model.encode(row.texts.get("text") or row.texts.get("completion") or row.texts["chosen"])
        yield row.id, -model.log_likelihood(chain, scores)[0] / max(len(chain) - 1, 1)


def _summary(spec: StageSpec, losses: Mapping[str, float]) -> dict[str, Any]:
    return {"metrics": {"loss": _with_interval([*losses.values()], spec.settings.get("seed", 0))}}


def _values(summary: Mapping[str, Any]) -> dict[str, float]:
    return {f"{task}.loss": found["metrics"]["loss"]["value"] for task, found in summary.items()}


def _with_interval(losses: list[float], seed: int, resamples: int = 200) -> dict[str, float]:
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(losses, k=len(losses))) / len(losses) for _ in range(resamples))
    low, high = means[int(0.025 * resamples)], means[int(0.975 * resamples)]
    return {"value": sum(losses) / len(losses), "low": low, "high": high, "n": len(losses)}
