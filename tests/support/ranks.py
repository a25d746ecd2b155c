"""The processes of a training, forked from one that has imported what they need: torch and trl take seconds to import."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed

import jobs.backends.trl.train  # noqa: F401 - imported once, in the process that the others are forked from
from jobs.core.spec import load
from tests.support import stages

ROOT = Path(__file__).resolve().parents[2]


ALONE = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
)
"""Variables of one of several processes: a process that has them by chance waits for others that there are not."""


@functools.cache
def _server() -> ForkServerContext:
    """Started with what all processes have in common, and nothing of those that happen to be the first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}):
        for name in ALONE:
            os.environ.pop(name, None)
        forkserver.ensure_running()
    return context


def process(
    target: Callable[..., None], args: Sequence[Any], variables: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """A process that is not started yet, with one thread and, in place of the environment here, ``variables``: those
    of a process that is alone, if None."""
    alone = {name: value for name, value in os.environ.items() if name not in ALONE}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return _server().Process(
        target=_in_environment, args=({**(alone if variables is None else variables), **own}, target, *args)
    )


def _in_environment(variables: Mapping[str, str], target: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(variables)
    target(*args)


def run(world: int, starts: Sequence[tuple[Path, int | None]], log: Path, seconds: float = 600) -> None:
    """Start the specs one after the other on ``world`` processes, each with the boundary to stop at.

    As torchrun does it: the parent holds the store, and the first process that fails ends the others.
    """
    log.touch()
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    variables = [{**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    ranks = [process(_rank, (starts, log), own) for own in variables]
    for rank in ranks:
        rank.start()
    end = time.monotonic() + seconds
    while any(rank.is_alive() for rank in ranks) and not any(rank.exitcode for rank in ranks):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()
        rank.join()
    codes = [rank.exitcode for rank in ranks]
    assert codes == [0] * world, f"exit codes {codes}\n{log.read_text()[-6000:]}"


def _rank(starts: Sequence[tuple[Path, int | None]], log: Path) -> None:
    with open(log, "ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    for path, stop_after in starts:
        stages.run_spec(load(path), stages.StopAfter(step=stop_after), [])
