"""What AutoModel writes: its checkpoints on disk and its log, without importing it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from jobs.core import files
from jobs.core.progress import Report
from jobs.training import checkpoints
from jobs.training.checkpoints import Completeness
from jobs.training.settings import BadSettings

RANKS = "ranks.json"
"""Beside each save: how many processes made it."""

NEEDED = ("model/*.safetensors", "optim/.metadata", "dataloader/*.pt", "step_scheduler.pt", "losses.json")
_STEP = re.compile(r"epoch_\d+_step_(\d+)\Z")


def completeness(directory: Path) -> Completeness:
    """Of a Hugging Face directory, or of ``epoch_E_step_S`` (named from 0): shards, optimizer and place in the data."""
    if not (directory / "model").is_dir():
        return checkpoints.hugging_face(directory)
    match = _STEP.search(directory.name)
    step = int(match[1]) + 1 if match else None
    return Completeness(step, checkpoints.missing(directory, NEEDED))


def refuse_other_ranks(save: Path, step: int, world: int) -> None:
    """AutoModel keeps the place in the data for each process, so a save is gone on from by as many as made it.

    Raises:
        BadSettings: ``save``, of ``step``, was made by another number than ``world``.
    """
    try:
        made_by = int(files.read_json(save / RANKS)["ranks"])
    except (OSError, ValueError, KeyError, TypeError):  # torn: the reader that verifies it takes an older one
        return
    if made_by != world:
        raise BadSettings(
            f"the save of step {step} was made by {made_by} processes, this start has {world}: AutoModel cannot "
            f"resume that (it keeps the place in the data for each process); give the stage {made_by} processes again"
        )


def consolidated(checkpoint: Path) -> Path | None:
    """The Hugging Face directory inside a checkpoint, if there is one and it is whole but for the tokenizer's files."""
    found = checkpoint / "model" / "consolidated"
    return found if (found / "config.json").is_file() and any(found.glob("*.safetensors")) else None


def report_of(total: int | None) -> Callable[[str], Report | None]:
    """What makes a report of each line of ``training.jsonl`` that is one."""

    def read(line: str) -> Report | None:
        try:
            value = json.loads(line)
            names = {"loss": "loss", "lr": "lr", "grad_norm": "grad_norm", "tps": "tokens_per_second"}
            metrics = {ours: float(value[theirs]) for theirs, ours in names.items() if theirs in value}
            return Report(time.time(), int(value["step"]) + 1, total, "", metrics)
        except (KeyError, TypeError, ValueError):
            return None

    return read
