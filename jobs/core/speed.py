"""How long a step takes, by the shape of the training: noted in the seal of a stage, looked up by the next plan.

A seal's metrics say ``step_seconds`` (median of the steps after the warm-up), ``gpu`` (its name as CUDA has it) and
``step_shape``, the text that is made here.
"""

from __future__ import annotations

SECONDS, GPU, SHAPE = "step_seconds", "gpu", "step_shape"
"""Keys of the metrics."""


def step_shape(
    batch: int, micro: int, length: int, precision: str, recompute: str, world: int, tensor: int, pipeline: int,
    context: int,
) -> str:  # fmt: skip
    """What decides the time of a step beside model, GPU and back end; ``batch`` and ``micro`` count rows."""
    parallel = f"world {world}, tensor {tensor}, pipeline {pipeline}, context {context}"
    return f"batch {batch} by {micro}, length {length}, {precision}, recompute {recompute}, {parallel}"
