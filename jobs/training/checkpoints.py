"""Whether a directory is a whole checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.core import safetensors

ADAPTER = "adapter_config.json"
"""Of a directory of adapters alone, as ``peft`` writes it."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""Beside it."""


@dataclass(frozen=True)
class Completeness:
    """Whether a directory is a whole checkpoint. ``step`` where the format keeps it; ``problem`` None: it is whole."""

    step: int | None = None
    problem: str | None = None


def missing(directory: Path, patterns: Iterable[str]) -> str | None:
    """The first of these files, or of patterns for one, that is not there, as a sentence; None where all are."""
    for pattern in patterns:
        if not any(path.is_file() for path in directory.glob(pattern)):
            return f"{directory / pattern} is missing"
    return None


def hugging_face(directory: Path) -> Completeness:
    """Whether a Hugging Face directory is whole: its configuration, and every file of weights that the index names.

    A file of safetensors says its own length in its header, so one that was cut off is found without reading it.
    """
    if not (directory / "config.json").is_file():
        return Completeness(problem=f"{directory / 'config.json'} is missing")
    index = directory / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = safetensors.shards(index)
        except ValueError as error:
            return Completeness(problem=f"{index}: not an index of weights: {error}")
    for name in names:
        problem = _cut_off(directory / name)
        if problem is not None:
            return Completeness(problem=problem)
    return Completeness()


def or_adapters(directory: Path) -> Completeness:
    """The same, or of adapters alone as ``peft`` writes them."""
    if (directory / "config.json").is_file() or not (directory / ADAPTER).is_file():
        return hugging_face(directory)
    return Completeness(problem=missing(directory, (ADAPTER_WEIGHTS,)) or _cut_off(directory / ADAPTER_WEIGHTS))


def _cut_off(path: Path) -> str | None:
    try:
        header = safetensors.header(path)
        found = path.stat().st_size
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    whole = found == header.bytes and header.dtypes
    return None if whole else f"{path} has {found} bytes, its header says {header.bytes}"
