"""Where the dev cluster lives, so that a profile finds it without an exported SLURM_CONF."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

VARIABLE = "OVERNIGHT_DEVCLUSTER"


def default_directory() -> Path:
    """``$OVERNIGHT_DEVCLUSTER``, or ``~/.overnight/devcluster`` of the user that runs us (also without $HOME)."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) / ".overnight" / "devcluster"


def slurm_conf(directory: Path | None = None) -> Path | None:
    """The ``slurm.conf`` of the dev cluster, or None where none was started.

    It says where a cluster was configured, not that its daemons answer: asking Slurm finds that out anyway.
    """
    path = (directory or default_directory()) / "etc" / "slurm.conf"
    return path if path.is_file() else None
