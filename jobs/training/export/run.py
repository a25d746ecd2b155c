"""Make an export: every form is read back and compared with the model that it was made from, else it is refused."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from typing import Any

from jobs.core.spec import StageSpec
from jobs.training import cpu, gguf, tokenizers
from jobs.training.export import card, gguf_file, smoke
from jobs.training.export.shards import write_shards
from jobs.training.interface import Result, WorkContext

STEPS = 4


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Write the input ``checkpoint`` in the forms of the settings, on rank 0.

    Raises:
        ConversionFailed: a form does not give the logits of its source, or cannot hold this model.
    """
    if ctx.rank != 0:
        return Result("done", step=STEPS)
    from jobs.training import models

    cpu.use_threads(None)
    source, output = spec.inputs["checkpoint"].output, ctx.output
    wanted: Mapping[str, Any] = spec.settings["export"]
    tokenizers.carry_over(source, output)
    shutil.copyfile(source / "config.json", output / "config.json")
    files = write_shards(source, output, int(wanted["max_shard_bytes"]))
    ctx.progress.report(1, STEPS, "shards")

    probes = gguf.probe_ids(source)
    model = models.load_model(source)
    expected = models.logits(model, probes)
    del model
    gc.collect()
    gguf.check_same_tokenizer(source, output)
    saved = models.load_model(output)
    metrics: dict[str, Any] = dict(gguf.compare_logits(expected, models.logits(saved, probes), f"{output}: shards"))
    metrics["shards"] = len(files)
    ctx.progress.report(2, STEPS, "compared")

    notes = []
    if wanted["gguf"] is not None:
        made = gguf_file.write(output, saved, wanted["gguf"], spec.settings["name"])
        metrics |= gguf_file.check(made, saved, expected, probes)
        notes.append(gguf_file.told(made.path.name, metrics))
    ctx.progress.report(3, STEPS, "gguf")
    if wanted["vllm"]:
        metrics["vllm"] = smoke.answers(output, saved)
        notes.append(metrics["vllm"])
    del saved
    card.write(spec, output, notes)
    ctx.progress.report(4, STEPS, "card")
    return Result("done", step=STEPS, metrics=metrics)
