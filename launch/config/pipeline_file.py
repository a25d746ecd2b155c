"""The pipeline as a file: read, overridden, checked as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.config import references, suites
from launch.config.document.layers import SET, apply_overrides
from launch.config.document.positions import Document, MarkedFile, failure
from launch.config.document.reader import read
from launch.config.document.typed import validate
from launch.config.pipeline import Pipeline


@dataclass(frozen=True)
class PipelineFile(MarkedFile):
    """A pipeline and where it came from, overrides applied."""

    pipeline: Pipeline

    @property
    def overrides(self) -> list[str]:
        """The texts of ``--set`` whose values are in it."""
        marks = {**self.positions.keys, **self.positions.values}.values()
        return list(dict.fromkeys(at.file.removeprefix(SET) for at in marks if at.file.startswith(SET)))

    def resolve(self, text: str) -> Path:
        """A path of the file: relative to the file's directory, ``~`` expanded."""
        return (self.path.parent / Path(text).expanduser()).resolve()


def read_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineFile:
    """A pipeline file, checked; ``overrides``: texts of ``--set``. Raises InputError: every fault, with lines."""
    return of_document(path, read(path), overrides)


def of_document(path: Path, document: Document, overrides: Sequence[str] = ()) -> PipelineFile:
    """``read_pipeline`` of a file that has been read."""
    data, positions = suites.expand(apply_overrides(document, overrides), Path(path).parent)
    hint = f"overnight plan {path} --cluster PROFILE"
    pipeline = validate(Pipeline, data, positions, hint=hint)
    problems = references.problems(pipeline)
    if problems:
        raise failure(problems, positions, hint=hint)
    return PipelineFile(Path(path), data, positions, pipeline)
