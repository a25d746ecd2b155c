"""What a start measured of itself, for its seal: the next plan holds its estimates against it (``jobs.core.speed``)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist

from jobs.core import speed
from jobs.core.spec import StageSpec
from jobs.training.settings import TrainingSettings


class Loop(Protocol):
    """What sits in a training loop. ``durations``: seconds of each step of this start, without its save."""

    tokens: int
    losses: list[float]
    durations: list[float]


def memory() -> dict[str, float]:
    """``memory_bytes`` of a report: the most that tensors took on this process's GPU so far; nothing without one."""
    return {"memory_bytes": float(torch.cuda.max_memory_allocated())} if torch.cuda.is_available() else {}


def metrics(
    spec: StageSpec,
    settings: TrainingSettings,
    loop: Loop,
    seconds: float,
    micro: int,
    world: int,
    *,
    recompute: str = "none",
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
) -> dict[str, Any]:
    """Metrics of the seal, to be called on every rank.

    With a GPU also its name and the bytes that tensors took and torch kept for them, of the rank that had most.
    """
    also = speed.also_of(spec.kind, spec.settings)
    size = (settings.batch_size, micro, settings.sequence_length, settings.precision)
    found: dict[str, Any] = {
        "tokens": loop.tokens,
        "seconds": seconds,
        speed.BACKEND: spec.backend,
        speed.SHAPE: speed.step_shape(*size, recompute, world, tensor, pipeline, context, also),
        **speed.median(loop.durations),
    }
    if loop.losses:
        found |= {"first_loss": loop.losses[0], "last_loss": loop.losses[-1]}
    if torch.cuda.is_available():
        peaks = torch.tensor([torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()], device="cuda")
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(peaks, op=dist.ReduceOp.MAX)
        taken, kept = peaks.tolist()
        found |= {speed.GPU: torch.cuda.get_device_name(), speed.MEMORY: taken, "peak_reserved_bytes": kept}
    return found
