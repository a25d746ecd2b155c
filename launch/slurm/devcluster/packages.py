"""Which of Debian's packages the dev cluster needs, and whether they are here."""

from __future__ import annotations

import os
import shutil
import subprocess

from launch.base.errors import InputError, OvernightError
from launch.slurm.devcluster.daemons import DAEMON_PATH

#: A program that each package brings.
_PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "slurm-client": "sinfo", "munge": "munged"}
_ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadb-server": "mariadbd"}
_APT = ("apt-get", "install", "-y", "--no-install-recommends")


def missing(accounting: bool) -> list[str]:
    """Packages whose program is nowhere on the daemons' PATH."""
    programs = _PROGRAMS | (_ACCOUNTING_PROGRAMS if accounting else {})
    return [package for package, program in programs.items() if not shutil.which(program, path=DAEMON_PATH)]


def require(accounting: bool, install: bool) -> None:
    """Make sure that all packages are there; with ``install``, and as root, by installing them.

    Raises:
        InputError: some are missing; the hint is the command that installs them.
        OvernightError: apt-get failed; the message has its last words.
    """
    absent = missing(accounting)
    if not absent:
        return
    command = [*_APT, *absent]
    if not install or os.geteuid() != 0:
        sudo = "" if os.geteuid() == 0 else "sudo "
        only_root = " (--install works for root only)" if install else ""
        raise InputError(
            f"the dev cluster needs packages that are not installed{only_root}: {', '.join(absent)}",
            hint=f"{sudo}apt-get update && {sudo}{' '.join(command)}",
        )
    environment = {**os.environ, "PATH": DAEMON_PATH, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update"], command):
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise OvernightError(f"{' '.join(argv)} failed:\n" + "\n".join(done.stdout.splitlines()[-6:]))
