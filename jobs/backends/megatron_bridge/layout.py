"""What a checkpoint of the format ``megatron`` looks like on disk, without importing Megatron."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.training import checkpoints
from jobs.training.checkpoints import Completeness

LATEST = "latest_checkpointed_iteration.txt"
"""Written by Megatron-Core after everything else of a checkpoint."""

_ITERATION = re.compile(r"iter_(\d{7})\Z")


def completeness(directory: Path) -> Completeness:
    """Whole with the iteration that ``LATEST`` names; a Hugging Face directory (an export) by its own rules."""
    if (directory / "config.json").is_file():
        return checkpoints.hugging_face(directory)
    try:
        text = (directory / LATEST).read_text(encoding="ascii").strip()
    except OSError as error:
        return Completeness(problem=f"{directory / LATEST} cannot be read: {error.strerror}")
    if not text.isdigit():
        return Completeness(problem=f"{directory / LATEST} names no iteration: {text[:40]!r}")
    step = int(text)
    needed = (".metadata", "metadata.json", "*.distcp")
    return Completeness(step, checkpoints.missing(directory / f"iter_{step:07d}", needed))
