"""NeMo-RL's distributed checkpoint to a Hugging Face directory with safetensors, compared by its logits.

Two comparisons, because each sees what the other cannot. The written directory is loaded as any user would load it,
and its logits are compared with the model that was filled from the checkpoint: both have the same names for the
weights, so a name that was mapped wrongly shows in neither. Some tensors are therefore read again, straight from the
``.distcp`` files at the places that ``.metadata`` names, and must be those of the written files to the last bit.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.backends.nemo_rl import steps
from jobs.core.spec import StageSpec
from jobs.training import finished, rope
from jobs.training.gguf import ConversionFailed, check_same_tokenizer, compare_logits, probe_ids
from jobs.training.interface import BrokenCheckpoint, Result, WorkContext

STEPS = 3
READ_AGAIN = 16
"""Tensors that are read straight from the files, spread evenly over their names."""

PREFIXES = ("", "model.")
"""NeMo-RL's first DTensor worker wraps all weights in ``model``."""


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Convert the input ``source``, on rank 0.

    Raises:
        BrokenCheckpoint: a file of the source is missing.
        ConversionFailed: weights that do not fit, other weights or logits, or another tokenizer.
    """
    if ctx.rank != 0:
        return Result("done", step=STEPS)
    source = spec.inputs["source"].output
    metrics = dcp_to_hf(source, ctx.output, lambda step, phase: ctx.progress.report(step, STEPS, phase))
    return Result("done", step=STEPS, metrics=metrics)


def dcp_to_hf(
    source: Path, output: Path, report: Callable[[int, str], None] = lambda step, phase: None
) -> dict[str, float]:
    """Write ``source`` as a Hugging Face directory in the type of the model that training started from.

    The reference model itself is not needed: its configuration and tokenizer lie in the checkpoint. NeMo-RL's own
    converter needs it, leaves a pickle in fp32 and reads other keys of its configuration than its trainer does.

    Raises: see ``run``.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from jobs.training import models

    problem = steps.problem(source)
    if problem is not None:
        raise BrokenCheckpoint(f"not a whole checkpoint of NeMo-RL: {problem}")
    weights = source / "policy" / "weights"
    weights = weights / "model" if (weights / "model" / ".metadata").is_file() else weights
    config = models.config_of(rope.readable(source / "hf"))
    # In this type from the start: casting a whole model rounds its buffers, too (the frequencies of rotary positions),
    # and those are no weights that anybody loads.
    made = AutoModelForCausalLM.from_config(config, dtype=models.type_of(config))
    _fill(made, weights, source)
    report(1, "read")
    made.save_pretrained(output)
    finished.finish(source / "hf", output)
    report(2, "saved")

    rounded = {name: value.float() for name, value in made.state_dict().items()}
    expected = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    expected.load_state_dict(rounded)
    del made, rounded
    probes = probe_ids(output)
    right, found = (models.logits(model, probes) for model in (expected, models.load_model(output)))
    check_same_tokenizer(source / "hf", output)
    compared = compare_logits(right, found, f"{output} against {source}")
    compared["tensors_read_again"] = float(compare_tensors(weights, output))
    report(3, "compared")
    return compared


def _fill(model: Any, weights: Path, source: Path) -> None:
    """Read the checkpoint into ``model``, which rounds to its own type on the way.

    Raises:
        ConversionFailed: a weight is missing, or one is there that the model does not have.
    """
    import torch.distributed.checkpoint as dcp

    held = set(dcp.FileSystemReader(weights).read_metadata().state_dict_metadata)
    prefix = "model." if held and all(name.startswith("model.") for name in held) else ""
    state = model.state_dict()
    if prefix and set(state) & held and not {prefix + name for name in state} & held:
        prefix = ""  # the model's own names begin so
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    absent = [name for name in state if prefix + name not in held and name not in tied]
    unknown = [name for name in held if name.removeprefix(prefix) not in state]
    if absent or unknown:
        raise ConversionFailed(
            f"{source}: weights do not fit the configuration: missing {absent[:3]}, unknown {sorted(unknown)[:3]}"
        )
    wanted = {prefix + name: value for name, value in state.items() if prefix + name in held}
    dcp.load(wanted, checkpoint_id=weights, no_dist=True)
    model.tie_weights()


def compare_tensors(weights: Path, written: Path, count: int = READ_AGAIN) -> int:
    """Hold tensors of the checkpoint, read without the loader of torch, against the written safetensors; how many.

    Raises:
        ConversionFailed: one differs in shape or value, or the checkpoint has none of its name.
    """
    import torch
    from safetensors import safe_open
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    metadata = FileSystemReader(weights).read_metadata()
    places: dict[str, Path] = {}
    for path in sorted(written.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    chosen = spread(sorted(places), count)
    for name in chosen:
        path = places[name]
        with safe_open(path, framework="pt") as file:
            target = file.get_tensor(name)
        held = next((prefix + name for prefix in PREFIXES if prefix + name in metadata.state_dict_metadata), None)
        entry = None if held is None else metadata.state_dict_metadata[held]
        if not isinstance(entry, TensorStorageMetadata):
            raise ConversionFailed(f"{weights}: no tensor {name}, which {path} has")
        given = torch.empty(entry.size, dtype=torch.float32)
        for index, info in metadata.storage_data.items():
            if index.fqn != held:
                continue
            with open(weights / info.relative_path, "rb") as stream:
                stream.seek(info.offset)
                part = torch.load(io.BytesIO(stream.read(info.length)), map_location="cpu", weights_only=True)
            area = given
            for axis, start in enumerate(index.offset or ()):
                area = area.narrow(axis, start, part.shape[axis])
            area.copy_(part)
        if given.shape != target.shape or not torch.equal(given.to(target.dtype), target):
            raise ConversionFailed(f"{path}: {name} is not what the files of {weights} hold")
    return len(chosen)


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of ``names``, evenly spread, with the first and the last."""
    if len(names) <= count:
        return list(names)
    return [names[round(index * (len(names) - 1) / (count - 1))] for index in range(count)]
