"""Evaluation of a checkpoint on held-out examples, with intervals, and against an earlier evaluation.

``metrics`` holds the formulas, ``intervals`` what chance explains, ``measure`` runs the model, ``kinds`` joins the two
(a module for those tasks that are alike), ``compare`` finds the change and ``gates`` judges it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import results
from jobs.core.spec import StageSpec
from jobs.evaluate.gates import GateFailed, GateUndecided
from jobs.training.interface import Result, WorkContext

if TYPE_CHECKING:
    from jobs.evaluate.kinds import PreparedTask
    from jobs.evaluate.settings import EvaluateSettings

__all__ = ["GateFailed", "GateUndecided", "run"]


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Evaluate the input ``checkpoint``; rank 0 works, other ranks have nothing to do.

    Writes ``samples.jsonl`` (one line an example) and ``evaluation.json`` (see ``compare.as_json``).

    Raises:
        BadSettings, DataError: before the model runs, but for examples that cannot be compared.
        GateFailed, GateUndecided: after both files were written.
    """
    from jobs.evaluate import compare
    from jobs.evaluate.settings import EvaluateSettings

    if ctx.rank != 0:
        return Result("done")
    settings = EvaluateSettings.read(spec.settings)
    other = spec.inputs.get("compare_to")
    earlier = compare.read_samples(other.output / "samples.jsonl") if other else None
    compare.check_gate(settings, earlier)

    prepared, samples = _measure(spec, ctx, settings)
    with open(ctx.output / "samples.jsonl", "w", encoding="utf-8") as stream:
        for found in samples.values():
            stream.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in found)
    came_of_it = compare.evaluate(samples, earlier, settings)
    how = {task.name: task.how for task in prepared}
    where = results.write(ctx.output, compare.as_json(came_of_it, how, settings))
    compare.apply_gates(came_of_it, settings, where)
    return Result(
        "done",
        metrics={
            f"{task}.{name}": one.now.estimate.value
            for task, measured in came_of_it.tasks.items()
            for name, one in measured.items()
        },
    )


def _measure(
    spec: StageSpec, ctx: WorkContext, settings: EvaluateSettings
) -> tuple[list[PreparedTask], dict[str, list[dict[str, Any]]]]:
    """The tasks made ready, and the samples of each."""
    from jobs.evaluate.kinds import Loaded

    rows = {name: task.kind.choose(task, spec.inputs) for name, task in settings.tasks.items()}

    import torch
    import transformers

    from jobs.training import cpu, tokenizers
    from jobs.training.models import load_model

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cpu.use_threads(settings.threads)
    checkpoint = spec.inputs["checkpoint"].output
    tokenizer = tokenizers.load(checkpoint)
    model = load_model(checkpoint).eval().to("cuda" if torch.cuda.is_available() else "cpu")

    reference = None
    if "reference" in spec.inputs:
        other = spec.inputs["reference"].output
        _same_vocabulary(checkpoint, other)
        reference = load_model(other).eval().to(model.device)
    loaded = Loaded(model, tokenizer, settings.batch_tokens, settings.batch_prompts, reference)
    prepared = [task.kind.prepare(task, rows[name], loaded) for name, task in settings.tasks.items()]
    total = sum(len(task.groups) for task in prepared)
    step = 0
    samples: dict[str, list[dict[str, Any]]] = {}
    for task in prepared:

        def done(name: str = task.name) -> None:
            nonlocal step
            step += 1
            ctx.progress.report(step, total, name)

        samples[task.name] = task.run(done)
    return prepared, samples


def _same_vocabulary(checkpoint: Path, reference: Path) -> None:
    """Raises BadSettings: the two models do not say the same tokens, so that their probabilities cannot be compared."""
    from jobs.training import tokenizers
    from jobs.training.settings import BadSettings

    one, other = tokenizers.behaviour(checkpoint), tokenizers.behaviour(reference)
    if any(one[name] != other[name] for name in ("probe_ids", "vocab_size")):
        raise BadSettings(f"measure kl: {checkpoint} and {reference} have other tokenizers: they cannot be compared")
