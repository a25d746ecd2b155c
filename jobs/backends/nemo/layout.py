"""What a checkpoint of the format ``nemo`` looks like on disk, without importing NeMo."""

from __future__ import annotations

from pathlib import Path

from jobs.training import checkpoints
from jobs.training.interface import BrokenCheckpoint

WEIGHTS, CONTEXT, HF = "weights", "context", "hf"
NEEDED = (f"{WEIGHTS}/.metadata", f"{WEIGHTS}/metadata.json", f"{WEIGHTS}/common.pt", f"{CONTEXT}/io.json")
"""Megatron writes ``.metadata`` and ``metadata.json`` after all tensors: a checkpoint with them is whole."""


def problem(directory: Path) -> str | None:
    """Why ``directory`` is no whole NeMo checkpoint, or None."""
    return checkpoints.missing(directory, (*NEEDED, f"{WEIGHTS}/*.distcp"))


def check(directory: Path) -> None:
    """Refuse what is no whole checkpoint.

    Raises:
        BrokenCheckpoint: with the file that is missing.
    """
    found = problem(directory)
    if found is not None:
        raise BrokenCheckpoint(f"not a whole NeMo checkpoint: {found}")


def tokenizer_directory(checkpoint: Path) -> Path:
    """Where the tokenizer files of a NeMo checkpoint or a Hugging Face directory are.

    Raises:
        BrokenCheckpoint: none, or several.
    """
    for directory in (checkpoint / HF, checkpoint):
        if (directory / "tokenizer_config.json").is_file():
            return directory
    found = sorted(path.parent for path in (checkpoint / CONTEXT).rglob("tokenizer_config.json"))
    if len(found) != 1:
        raise BrokenCheckpoint(f"{checkpoint}: {len(found)} tokenizers in {CONTEXT}/, one is needed")
    return found[0]
