"""Variables of the programs that start processes: what must not reach a program that starts processes of its own."""

from __future__ import annotations

from collections.abc import Mapping

MPI = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "MPI_")
"""Prefixes of variables by which a library believes to run under srun or mpirun."""

TORCHRUN = ("TORCHELASTIC_", "TORCH_", "GROUP_", "ROLE_", "MASTER_", "OVERNIGHT_")
RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"})
PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "OMP_NUM_THREADS"})
"""Of our Python: another one would import our modules. torchrun sets OMP_NUM_THREADS to 1."""


def without_mpi(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables but those of srun and mpirun."""
    return {name: value for name, value in ours.items() if not name.startswith(MPI)}


def without_launcher(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables but those of srun, mpirun, torchrun and our Python: for a program of another environment."""
    kept = without_mpi(ours)
    left_out = RANKS | PYTHON
    return {name: value for name, value in kept.items() if name not in left_out and not name.startswith(TORCHRUN)}
