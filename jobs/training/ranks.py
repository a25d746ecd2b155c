"""The processes of a stage beside their trainer: rank 0 prepares, the others learn what it found.

Trainers start torch.distributed late; it is started here before that (and found running there), because the data files
are written and the newest valid save is chosen by rank 0 alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def start(world: int, seconds: float) -> None:
    """Join the other processes (variables of torchrun), and wait for so many ``seconds`` for one of them; nothing to do
    for a single one."""
    if world == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timedelta(seconds=seconds))
    else:
        dist.init_process_group("gloo", timeout=timedelta(seconds=seconds))


def start_alone() -> None:
    """Give a single process a group of its own, for libraries that shard over one; nothing to do where it has one."""
    if dist.is_initialized():
        return
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def on_first(make: Callable[[], T]) -> T:
    """What ``make`` returns on rank 0, on every rank; an error there is an error everywhere.

    Raises:
        Exception: whatever ``make`` raised on rank 0.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:  # one process on a GPU may have no group for the CPU
        return make()
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            box = [make(), None]
        except Exception as error:
            box = [None, error]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if isinstance(box[1], Exception):
        raise box[1]
    found: T = box[0]
    return found


def barrier() -> None:
    """Wait for all ranks; nothing to do in a single process."""
    if dist.is_initialized():
        dist.barrier()


def any_of(flags: list[bool], device: torch.device) -> list[bool]:
    """For each flag whether it is set on any rank: one small all-reduce."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flags
    found = torch.tensor([float(flag) for flag in flags], device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [value > 0 for value in found.tolist()]
