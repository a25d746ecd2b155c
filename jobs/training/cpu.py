"""How many CPU threads the numerical libraries take, and how these threads wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping


def wait_passively() -> None:
    """Let OpenMP threads sleep while they wait; to be called before torch is imported.

    By default they spin. Where two processes share the cores (two nodes of a development cluster on one machine, a
    shared login node) each spins away the time that the other needs: training took up to four times as long in our
    measurements, and sleeping cost nothing where a process had the cores for itself.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def threads_given(environment: Mapping[str, str] = os.environ) -> int | None:
    """CPUs that Slurm gave to each process here; None outside of Slurm.

    torch counts the cores that it can see, and a cluster without cgroups shows every job the whole machine.
    """
    per_task = environment.get("SLURM_CPUS_PER_TASK")
    if per_task and per_task.isdigit():
        return int(per_task)
    on_node = environment.get("SLURM_CPUS_ON_NODE")
    if on_node and on_node.isdigit():
        return max(1, int(on_node) // int(environment.get("LOCAL_WORLD_SIZE", "1")))
    return None


def use_threads(wanted: int | None) -> None:
    """Give torch ``wanted`` threads; if None, at most as many as Slurm gave."""
    import torch

    given = threads_given()
    if wanted is not None:
        torch.set_num_threads(wanted)
    elif given is not None:
        torch.set_num_threads(min(given, torch.get_num_threads()))


def writers() -> int:
    """By how many threads or processes one of the processes on this node writes its part of a save: 38 GB of two
    processes on two H200 took 18 s by 8, and 32 s by one (benchmarks/gpu)."""
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, max(2, cores))
