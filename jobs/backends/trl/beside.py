"""Saves of torch.distributed.checkpoint that are written while the training goes on.

The training stands for a copy into the memory of its host. Planning, which the processes do together, and writing are
left to a thread with a group of its own: the trainer's must not be used by two threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._state_dict_stager import StateDictStager  # DefaultStager of torch 2.11 serves once

from jobs.training import cpu

_write = dcp.save


class TrlBeside:
    """What is saved inside ``copied`` is written by ``write``. Made on every process at once.

    The copies stay for the next save: as many bytes of this host's memory as this process has of the save.
    """

    def __init__(self) -> None:
        self._gpu = torch.cuda.is_available()
        self._group = dist.new_group(backend="gloo")
        self._stager = StateDictStager(pin_memory=self._gpu)
        self._parts: list[tuple[Any, dict[str, Any]]] = []

    @contextmanager
    def copied(self) -> Iterator[None]:
        """Inside, ``torch.distributed.checkpoint.save`` copies; what was copied before must have been written."""
        self._parts = []
        vars(dcp)["save"] = self._copy
        try:
            yield
        finally:
            vars(dcp)["save"] = _write

    def _copy(self, state_dict: dict[str, Any], **more: Any) -> None:
        self._parts.append((self._stager.stage(state_dict, non_blocking=self._gpu), more))
        if self._gpu:
            torch.cuda.synchronize()

    def write(self) -> None:
        """Write what was copied; by one thread of every process. Returns when all of them have written.

        Raises:
            CheckpointException: one of them could not.
        """
        parts, self._parts = self._parts, []
        for state, more in parts:
            _write(state, process_group=self._group, **more)


@contextmanager
def several_writers() -> Iterator[None]:
    """What is saved by torch.distributed.checkpoint is written by several threads: accelerate takes one, and has no
    argument for it."""
    given = dcp.FileSystemWriter
    vars(dcp)["FileSystemWriter"] = partial(given, thread_count=cpu.writers())
    try:
        yield
    finally:
        vars(dcp)["FileSystemWriter"] = given
