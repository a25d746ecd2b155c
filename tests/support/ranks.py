"""The processes of a training, forked from one that has imported what they need: torch and trl take seconds to import."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

import torch.distributed

import jobs.backends.trl.train  # noqa: F401 - imported once, in the process that the others are forked from
from jobs.core.spec import load
from tests.support import stages

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def run(world: int, starts: Sequence[tuple[Path, int | None]], log: Path, seconds: float = 600) -> None:
    """Start the specs one after the other on ``world`` processes, each with the boundary to stop at.

    As torchrun does it: the parent holds the store, and the first process that fails ends the others.
    """
    log.touch()
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1",
        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with mock.patch.dict(os.environ, common):  # of the server, too, where this is the first call
        variables = [{**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        ranks = [_server().Process(target=_rank, args=(own, starts, log)) for own in variables]
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


def _rank(variables: Mapping[str, str], starts: Sequence[tuple[Path, int | None]], log: Path) -> None:
    os.environ.clear()
    os.environ.update(variables)
    with open(log, "ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    for path, stop_after in starts:
        stages.run_spec(load(path), stages.StopAfter(step=stop_after), [])
