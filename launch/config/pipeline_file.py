"""The pipeline as a file: read, overridden, checked as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.config import references
from launch.config.document.overrides import apply_overrides
from launch.config.document.positions import Document, KeyPath, Positions, Problem, failure
from launch.config.document.reader import read
from launch.config.document.validate import validate
from launch.config.pipeline import Pipeline


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline and where it came from. ``data`` holds what was written, overrides applied."""

    path: Path
    data: dict[str, Any]
    positions: Positions
    pipeline: Pipeline

    def resolve(self, text: str) -> Path:
        """A path of the file: relative to the file's directory, ``~`` expanded."""
        return (self.path.parent / Path(text).expanduser()).resolve()

    def where(self, *path: str | int) -> str:
        """``file:line:column`` of the value at ``path``."""
        return str(self.positions.value(path))

    def error(self, path: KeyPath, text: str, hint: str | None = None) -> InputError:
        """An error about the value at ``path``, for faults that only the planner can see."""
        return failure([Problem(path, text)], self.positions, hint=hint)


def read_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineFile:
    """Read and check a pipeline file; ``overrides`` are the texts of ``--set``.

    Raises:
        InputError: lists every fault with its line.
    """
    return of_document(path, read(path), overrides)


def of_document(path: Path, document: Document, overrides: Sequence[str] = ()) -> PipelineFile:
    """``read_pipeline`` of a file that has been read."""
    data, positions = apply_overrides(document.data, document.positions, overrides)
    hint = f"overnight plan {path} --cluster PROFILE"
    pipeline = validate(Pipeline, data, positions, hint=hint)
    problems = references.problems(pipeline)
    if problems:
        raise failure(problems, positions, hint=hint)
    return PipelineFile(Path(path), data, positions, pipeline)
