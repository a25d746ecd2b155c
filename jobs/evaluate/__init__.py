"""Evaluation of a checkpoint on held-out examples, with intervals, and against an earlier evaluation.

``metrics`` holds the formulas, ``measure`` runs the model, ``tasks`` joins the two, ``compare`` judges the change.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.evaluate.compare import GateFailed
from jobs.training.interface import Result, WorkContext

if TYPE_CHECKING:
    from jobs.evaluate.settings import EvaluateSettings

__all__ = ["GateFailed", "run"]


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Evaluate the input ``checkpoint``; rank 0 works, other ranks have nothing to do.

    Writes ``samples.jsonl`` (one line an example) and ``metrics.json`` (see ``compare.summary``).

    Raises:
        BadSettings, DataError: before the model runs.
        GateFailed: after both files were written.
    """
    from jobs.evaluate import compare
    from jobs.evaluate.settings import EvaluateSettings

    if ctx.rank != 0:
        return Result("done")
    settings = EvaluateSettings.read(spec.settings)
    other = spec.inputs.get("compare_to")
    earlier = compare.read_samples(other.output / "samples.jsonl") if other else None
    compare.check_gate(settings, earlier)

    samples = _measure(spec, ctx, settings)
    with open(ctx.output / "samples.jsonl", "w", encoding="utf-8") as stream:
        for found in samples.values():
            stream.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in found)
    changed = compare.changes(samples, earlier, settings) if earlier else {}
    summary = compare.summary(samples, changed, settings)
    where = ctx.output / "metrics.json"
    files.write_json(where, summary)
    compare.apply_gate(changed, settings, where)
    return Result(
        "done",
        metrics={
            f"{task}.{name}": entry["value"] for task, entries in summary.items() for name, entry in entries.items()
        },
    )


def _measure(spec: StageSpec, ctx: WorkContext, settings: EvaluateSettings) -> dict[str, list[dict[str, Any]]]:
    """Samples of every task."""
    from jobs.evaluate import tasks

    rows = {
        name: tasks.choose(spec.inputs[task.data].output / f"{task.split}.jsonl", name, task)
        for name, task in settings.tasks.items()
    }

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

    prepared = [tasks.prepare(name, chosen, settings, model, tokenizer) for name, chosen in rows.items()]
    total = sum(len(task.groups) for task in prepared)
    step = 0
    samples: dict[str, list[dict[str, Any]]] = {}
    for task in prepared:

        def done(name: str = task.name) -> None:
            nonlocal step
            step += 1
            ctx.progress.report(step, total, name)

        samples[task.name] = task.run(done)
    return samples
