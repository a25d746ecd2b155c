"""The Ray cluster of a stage: whether all its GPUs are there before NeMo-RL looks for them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from jobs.core.launchers import without_mpi
from jobs.core.verdict import FailureClass


class MissingGpus(RuntimeError):
    """Fewer GPUs joined the Ray cluster than the stage was planned on."""

    failure = FailureClass.MISSING_GPUS


@dataclass(frozen=True)
class ClusterShape:
    """Nodes of the job and GPUs on each."""

    nodes: int
    gpus_per_node: int

    @classmethod
    def of_job(cls) -> ClusterShape:
        """From Slurm's variables and what torch sees on this node; one node outside Slurm.

        Raises:
            MissingGpus: there is none.
        """
        import torch

        gpus = torch.cuda.device_count()
        if gpus < 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
            raise MissingGpus(f"no GPU is visible here (CUDA_VISIBLE_DEVICES {visible}); ask for gpus_per_node")
        return cls(int(os.environ.get("SLURM_STEP_NUM_NODES", "1")), gpus)


def environment() -> dict[str, str]:
    """Variables for Ray and NeMo-RL: ours without the launcher's, which Ray would hand to every worker."""
    return {
        **without_mpi(os.environ),
        "NO_VCS_VERSION": "1",  # NeMo-RL would run git in its checkout
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }


def wait(shape: ClusterShape, seconds: float) -> None:
    """Wait until all GPUs have joined the cluster at ``RAY_ADDRESS``; without one NeMo-RL starts its own.

    NeMo-RL itself gives up after a minute of retries with an error that names neither node nor reason.

    Raises:
        MissingGpus: how many of how many came, on which nodes.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return
    import ray

    wanted = shape.nodes * shape.gpus_per_node
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        end = time.monotonic() + seconds
        while True:
            alive = [node for node in ray.nodes() if node["Alive"]]
            # By the name that our template gives each: nodes in containers may all have one host name.
            found = {
                node.get("NodeName") or node["NodeManagerHostname"]: int(node["Resources"].get("GPU", 0))
                for node in alive
            }
            if sum(found.values()) >= wanted:
                return
            if time.monotonic() >= end:
                listed = ", ".join(f"{name}: {count}" for name, count in sorted(found.items()))
                raise MissingGpus(
                    f"{sum(found.values())} of {wanted} GPUs joined the Ray cluster within {seconds:.0f} s ({listed}); "
                    "the logs of the other nodes say why theirs did not"
                )
            time.sleep(1.0)
    finally:
        ray.shutdown()
