"""A curve: the same tasks measured on every save of a training that stays, by one model whose weights are swapped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import results
from jobs.core.spec import StageSpec
from jobs.evaluate import compare, session
from jobs.evaluate.kept import SAMPLES, Samples, read_points, read_samples, write_samples
from jobs.evaluate.kinds import Loaded
from jobs.evaluate.settings import EvaluateSettings
from jobs.training.interface import Result, WorkContext
from jobs.training.points import Load, Point, model_of, points

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OWN = ("curve", "choose")
"""Settings that are no settings of an evaluation."""


def settings_of(spec: StageSpec) -> EvaluateSettings:
    """The settings of the tasks.

    Raises:
        BadSettings: naming the setting.
    """
    return EvaluateSettings.read({name: value for name, value in spec.settings.items() if name not in OWN})


def run(spec: StageSpec, ctx: WorkContext, load: Load) -> Result:
    """Measure every point; called on every rank.

    Writes ``samples.jsonl`` with the step of each example, and ``evaluation.json`` with the numbers of all points
    beside those of the last.

    Raises:
        BadSettings, DataError, SavesMissing: before the model runs.
    """
    settings = settings_of(spec)
    other = spec.inputs.get("compare_to")
    found = points(spec)[1 if other else 0 :]
    rows = session.chosen_rows(spec, settings)
    judges = session.judges_of(spec, settings, ctx)
    loaded = replace(session.load(spec.inputs["source"].output, spec, settings), judges=judges)
    steps = [point.step for point in found]
    work = session.EvaluationSession(spec, ctx, session.prepared(settings, rows, loaded), steps)
    if not work.end(_measured(spec, ctx, work, loaded, found, load)):
        return Result("stopped", work.rows)
    if ctx.rank:
        return Result("done")
    samples = {step: work.samples(step) for step in steps}
    write_samples(ctx.output / SAMPLES, (line for own in samples.values() for line in session.lines_of(own)))
    earlier = read_samples(other.output / SAMPLES) if other else samples[0]
    how = {task.name: task.how for task in work.tasks}
    came_of_it = {
        step: compare.evaluate(own, None if own is earlier else earlier, settings) for step, own in samples.items()
    }
    shown: list[dict[str, Any]] = [
        {"step": step, "tasks": compare.as_json(one, how, settings)} for step, one in came_of_it.items()
    ]
    against = {"stage": other.stage} if other else {"step": 0}
    curve = {"of": spec.inputs["checkpoint"].stage, "against": against, "points": shown}
    results.write(ctx.output, shown[-1]["tasks"], curve=curve)
    return Result("done", metrics=compare.values(came_of_it[steps[-1]]))


def _measured(
    spec: StageSpec,
    ctx: WorkContext,
    work: session.EvaluationSession,
    loaded: Loaded,
    found: Sequence[Point],
    load: Load,
) -> bool:
    """Whether this process has measured its share of all points."""
    scratch = ctx.saves.directory / f"model-{ctx.rank}"
    for point in found:
        if work.is_measured(point.step):
            continue
        if point.step:
            swap(loaded.model, model_of(spec, point, scratch, load))
        is_through = work.measure(point.step)
        shutil.rmtree(scratch, ignore_errors=True)
        if not is_through:
            return False
    return True


def swap(model: PreTrainedModel, directory: Path) -> None:
    """Give a model the weights of a Hugging Face directory of the same architecture, one file of them at a time.

    Where the names in the files are not those of the model (transformers renames some when it loads), it is loaded as
    a whole beside.
    """
    import torch
    from safetensors import safe_open

    from jobs.training.models import load_model

    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    names: set[str] = set()
    weights = sorted(directory.glob("*.safetensors"))
    for path in weights:
        with safe_open(path, framework="pt") as stream:
            names.update(stream.keys())
    if names - own.keys() or own.keys() - names - tied:
        own = load_model(directory, model.dtype).state_dict()
        model.load_state_dict(own)
        return
    with torch.no_grad():
        for path in weights:
            with safe_open(path, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118 - it is not a mapping
                    own[name].copy_(stream.get_tensor(name))
    model.tie_weights()


def samples_of(output: Path) -> dict[int, Samples]:
    """The samples of a finished curve: step -> task -> samples."""
    return {int(step or 0): samples for step, samples in read_points(output / SAMPLES).items()}


def on_split(settings: EvaluateSettings, split: str) -> EvaluateSettings:
    """The same tasks on another split, of those that have splits."""
    tasks = {
        name: replace(task, keys=replace(task.keys, split=split)) if hasattr(task.keys, "split") else task
        for name, task in settings.tasks.items()
    }
    return replace(settings, tasks=tasks)


def steps_of(samples: Mapping[int, Any]) -> Iterator[int]:
    """The steps after the start of the training, the earliest first."""
    return (step for step in sorted(samples) if step)
