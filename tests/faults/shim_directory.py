"""Puts the fake commands of ``shim.py`` into a directory for PATH."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

NAMES = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun")


def install(directory: Path, python: str) -> dict[str, str]:
    """The environment in which the fake commands are found; their state is in ``directory/state``."""
    (directory / "bin").mkdir(parents=True)
    (directory / "state").mkdir()
    program = shlex.quote(str(Path(__file__).with_name("shim.py")))
    for name in NAMES:
        path = directory / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} -P {program} {name} "$@"\n')
        path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    return {**kept, "PATH": f"{directory / 'bin'}:{kept['PATH']}", "FAULTS_STATE": str(directory / "state")}
