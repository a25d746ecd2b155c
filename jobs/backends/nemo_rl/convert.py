"""NeMo-RL's distributed checkpoint to a Hugging Face directory with safetensors, compared by its logits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from jobs import tokenizers
from jobs.backends import BrokenCheckpoint, Result, WorkContext
from jobs.backends.nemo_rl import steps
from jobs.convert import ConversionFailed, compare_logits, probe_ids
from jobs.core.spec import StageSpec

STEPS = 3


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Convert the input ``source``, on rank 0.

    Raises:
        BrokenCheckpoint: a file of the source is missing.
        ConversionFailed: weights that do not fit, other logits, or another tokenizer.
    """
    if ctx.rank != 0:
        return Result("done", step=STEPS)
    source = spec.inputs["source"].output
    metrics = dcp_to_hf(source, ctx.output, lambda step, phase: ctx.progress.report(step, STEPS, phase))
    return Result("done", step=STEPS, metrics=metrics)


def dcp_to_hf(source: Path, output: Path, report: Any = lambda step, phase: None) -> dict[str, float]:
    """Write ``source`` as a Hugging Face directory in the type of the model that training started from.

    The reference model itself is not needed: its configuration and tokenizer lie in the checkpoint. NeMo-RL's own
    converter needs it, leaves a pickle in fp32 and reads other keys of its configuration than its trainer does.

    Raises: see ``run``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    found = steps.problem(source)
    if found is not None:
        raise BrokenCheckpoint(f"not a whole checkpoint of NeMo-RL: {found}")
    config = AutoConfig.from_pretrained(str(source / "hf"), local_files_only=True)
    named = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    dtype = named if isinstance(named, torch.dtype) else torch.float32
    model = AutoModelForCausalLM.from_config(config)
    result = model.load_state_dict(_weights(source / "policy" / "weights"), strict=False)
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    absent = [name for name in result.missing_keys if name not in tied]
    if absent or result.unexpected_keys:
        raise ConversionFailed(
            f"{source}: weights do not fit the configuration: missing {absent[:3]}, "
            f"unknown {result.unexpected_keys[:3]}"
        )
    model.tie_weights()
    model.to(dtype)
    report(1, "read")
    model.save_pretrained(output)
    tokenizers.carry_over(source / "hf", output)
    report(2, "saved")

    saved = AutoModelForCausalLM.from_pretrained(
        str(output), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    probes = probe_ids(output)
    logits = []
    for network in (model.float(), saved):
        network.eval()
        with torch.inference_mode():
            logits.append([network(torch.tensor([ids])).logits[0] for ids in probes])
    report(3, "compared")
    if tokenizers.behaviour(output) != tokenizers.behaviour(source / "hf"):
        raise ConversionFailed(f"{output}: the tokenizer is not that of {source}")
    return compare_logits(*logits, f"{output} against {source}")


def _weights(directory: Path) -> dict[str, Any]:
    """All tensors of a distributed checkpoint by name; NeMo-RL's first worker wraps them in ``model``."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    inner = directory / "model"
    with tempfile.TemporaryDirectory(dir=directory.parents[2]) as scratch:
        path = Path(scratch) / "weights.pt"
        dcp_to_torch_save(inner if (inner / ".metadata").is_file() else directory, path)
        found = torch.load(path, weights_only=True, map_location="cpu")
    if set(found) == {"model"}:
        found = found["model"]
    return dict(found)
