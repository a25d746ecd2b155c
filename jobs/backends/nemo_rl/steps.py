"""NeMo-RL's checkpoints on disk: ``step_N``, complete once it has that name, done once it says so itself.

A run that stopped for the time limit ends with exit code 0 like one that finished, so what counts is
``training_info.json``: ``total_steps`` against the target.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from jobs.core import files
from jobs.training import checkpoints

_STEP = re.compile(r"step_(\d+)\Z")
NEEDED = ("policy/weights/.metadata", "config.yaml", "training_info.json")


def problem(directory: Path) -> str | None:
    """Why a ``step_N`` (or our ``dcp`` output) is not complete, or None."""
    return checkpoints.missing(directory, (*NEEDED, "policy/weights/*.distcp"))


def total(directory: Path) -> int:
    """Steps trained, as the checkpoint itself says.

    Raises:
        ValueError: its ``training_info.json`` says nothing of the kind.
    """
    value = files.read_json(directory / "training_info.json")
    found = value.get("total_steps") if isinstance(value, dict) else None
    if not isinstance(found, int):
        raise ValueError(f"{directory / 'training_info.json'}: no total_steps")
    return found


def complete(checkpoints: Path) -> dict[int, Path]:
    """Step -> directory of the complete checkpoints. NeMo-RL writes ``tmp_step_N`` and renames it."""
    try:
        entries = list(checkpoints.iterdir())
    except FileNotFoundError:
        return {}
    found = {int(match[1]): entry for entry in entries if (match := _STEP.match(entry.name))}
    return {step: directory for step, directory in found.items() if problem(directory) is None}


def link_tree(source: Path, target: Path) -> None:
    """Copy a directory by hard links (weights take no second place); by bytes where there are none."""

    def link(left: str, right: str) -> None:
        try:
            os.link(left, right)
        except OSError:
            shutil.copyfile(left, right)

    shutil.copytree(source, target, copy_function=link)
