"""What a start measured of itself, for its seal: the next plan holds its estimates against it (``jobs.core.speed``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from jobs.core import speed


def of_start(backend: str, shape: str, durations: Sequence[float]) -> dict[str, Any]:
    """Metrics of the seal, to be called on every rank.

    Args:
        shape: by ``speed.step_shape``.
        durations: seconds of each step of this start, without its save.

    Returns:
        With a GPU also its name and the bytes that tensors took and torch kept for them, of the rank that had most.
    """
    found: dict[str, Any] = {speed.BACKEND: backend, speed.SHAPE: shape, **speed.median(durations)}
    if torch.cuda.is_available():
        peaks = torch.tensor([torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()], device="cuda")
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(peaks, op=dist.ReduceOp.MAX)
        taken, kept = peaks.tolist()
        found |= {speed.GPU: torch.cuda.get_device_name(), speed.MEMORY: taken, "peak_reserved_bytes": kept}
    return found
