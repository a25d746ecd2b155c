"""What a step takes, in seconds and memory, by the shape of the training: noted in the seal of a stage, looked up by
the next plan.

A seal's metrics say ``step_seconds`` (median of the steps after the warm-up), ``peak_memory_bytes`` (what tensors took
on the GPU), ``gpu`` (its name as CUDA has it), ``trained_by`` (the back end) and ``step_shape``, the text that is made
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SECONDS, GPU, SHAPE, MEMORY, BACKEND = "step_seconds", "gpu", "step_shape", "peak_memory_bytes", "trained_by"
"""Keys of the metrics."""

WARM_UP = 3
"""Steps that are not timed: kernels are chosen and memory is taken in them."""


def step_shape(
    batch: int,
    micro: int,
    length: int,
    precision: str,
    recompute: str,
    world: int,
    tensor: int,
    pipeline: int,
    context: int,
    also: str = "",
) -> str:
    """What decides the time of a step beside model, GPU and back end; ``batch`` and ``micro`` count rows, ``also`` is
    what ``also_of`` says of the stage."""
    parallel = f"world {world}, tensor {tensor}, pipeline {pipeline}, context {context}"
    return f"batch {batch} by {micro}, length {length}, {precision}, recompute {recompute}, {parallel}{also}"


_ALSO = (
    "shard", "optimizer", "attention", "padding_free", "lora_base", "lora_dora", "lora_dropout", "lora_targets",
    "liger",
)  # fmt: skip


def also_of(kind: str, settings: Mapping[str, Any]) -> str:
    """What else makes one step unlike another: rows that are padded, adapters, packed sequences, and what takes other
    memory; empty for the rest."""
    parts = [
        "" if kind == "cpt" else kind,
        f"lora {settings['lora_rank']}" if settings.get("lora_rank") else "",
        "packed" if settings.get("packed") else "",
        *(f"{name} {settings[name]}" for name in _ALSO if settings.get(name) not in (None, False, "none", "whole")),
    ]
    return "".join(f", {part}" for part in parts if part)


def median(durations: Sequence[float]) -> dict[str, float]:
    """``step_seconds`` of a start's steps; nothing where there were too few of them after the warm-up."""
    import statistics  # `overnight plan` imports this module, and has nothing to take the median of

    return {SECONDS: statistics.median(durations[WARM_UP:])} if len(durations) > 2 * WARM_UP else {}
