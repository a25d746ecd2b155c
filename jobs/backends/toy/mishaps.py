"""What a toy stage can be told to do wrong, so that a cluster, a profile and Overnight's answers can be tried.

``options: {mishap: hang, mishap_step: 5, mishap_rank: 1, mishap_starts: 1}``: after step 5, on rank 1, in the
first start of a job only. With a mishap the ranks meet after each step, as those of a real trainer do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

MISHAPS = {
    "hang": "waits for ever in a lock",
    "kill": "is killed by SIGKILL",
    "memory": "asks for more memory than there is",
    "greed": "takes memory until it is killed for it",
    "nccl": "reports a collective operation that timed out",
    "gpu": "finds no GPU",
    "code": "opens a file that was never there",
}

BLOCK = 1 << 24
GREED = 2 << 30
"""Bytes that ``greed`` takes at most, where no limit is enforced."""


def strike(name: str) -> None:
    """Do it."""
    if name == "hang":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "memory":
        bytearray(1 << 62)
    elif name == "greed":
        taken = [b"\1" * BLOCK for _ in range(GREED // BLOCK)]
        raise MemoryError(f"nobody stopped at {len(taken) * BLOCK} bytes")
    elif name == "nccl":
        raise RuntimeError(
            "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, "
            "NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600010 milliseconds before timing out."
        )
    elif name == "gpu":
        raise RuntimeError("No CUDA GPUs are available")
    elif name == "code":
        Path("/nowhere/of/ours.json").read_text()


def meet(directory: Path, rank: int, world: int, step: int) -> None:
    """Wait until every rank has made this step: a barrier of files, without a time-out, as a collective is."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{step}.{rank}").touch()
    while any(not (directory / f"{step}.{other}").exists() for other in range(world)):
        time.sleep(0.05)
