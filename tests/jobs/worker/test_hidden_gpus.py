"""CUDA_VISIBLE_DEVICES of somebody else hides the GPUs that Slurm gave."""

from __future__ import annotations

import pytest

from jobs.worker.work import _hidden_gpus


@pytest.mark.parametrize(
    ("variables", "hidden"),
    [
        ({"CUDA_VISIBLE_DEVICES": "7", "SLURM_GPUS_ON_NODE": "2", "SLURM_STEP_GPUS": "2,3"}, True),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "1"}, True),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "2", "SLURM_STEP_GPUS": "2,3"}, False),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_GPUS": "2,3"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_GPUS": "2,3"}, False),  # within a cgroup
        ({"CUDA_VISIBLE_DEVICES": "MIG-1c2d", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_GPUS": "0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "7"}, False),  # no job, or one that asked for no GPU
        ({"SLURM_GPUS_ON_NODE": "2"}, False),
    ],
)
def test_gpus_that_the_profile_hides(variables: dict[str, str], hidden: bool) -> None:
    said = _hidden_gpus(variables)
    assert bool(said) is hidden
    assert not hidden or f"CUDA_VISIBLE_DEVICES is {variables['CUDA_VISIBLE_DEVICES']!r}" in said
