"""What a checkpoint of AutoModel looks like on disk, without importing it."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.core import files
from jobs.training import checkpoints
from jobs.training.checkpoints import Completeness
from jobs.training.settings import BadSettings

RANKS = "ranks.json"
"""Beside each save: how many processes made it."""

NEEDED = ("model/*.safetensors", "optim/.metadata", "dataloader/*.pt", "step_scheduler.pt", "losses.json")
_STEP = re.compile(r"epoch_\d+_step_(\d+)\Z")


def completeness(directory: Path) -> Completeness:
    """Of a Hugging Face directory, of adapters alone, or of ``epoch_E_step_S`` (named from 0): shards, optimizer and
    place in the data."""
    if not (directory / "model").is_dir():
        return checkpoints.or_adapters(directory)
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


def adapters(checkpoint: Path) -> Path | None:
    """The directory inside a checkpoint that holds adapters alone, if there is one and it is whole."""
    found = checkpoint / "model"
    return found if (found / checkpoints.ADAPTER).is_file() and not checkpoints.or_adapters(found).problem else None
