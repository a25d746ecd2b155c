"""The stage spec: everything that a job needs, resolved on the login node. A job reads no YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.core import files
from jobs.core.hashing import Depth
from jobs.core.paths import StagePaths, StorePaths

SCHEMA = 1


@dataclass(frozen=True)
class Input:
    """A sealed store entry that the stage reads."""

    stage: str
    store: str
    kind: str
    format: str
    fingerprint: str

    @property
    def paths(self) -> StorePaths:
        return StorePaths(Path(self.store))

    @property
    def output(self) -> Path:
        return self.paths.output


@dataclass(frozen=True)
class Source:
    """A user's file that the stage reads; digested at submission and again when it is read."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class StageSpec:
    """See docs/architecture.md, "Stage spec". A run keeps the code that it was submitted with, which knows no field of
    later: what is new goes by the environment of ``host.sh``."""

    run: str
    pipeline: str
    stage: str
    kind: str
    backend: str
    attempt: str
    fingerprint: str
    stage_dir: str
    store_dir: str
    produces: dict[str, str]
    settings: dict[str, Any]
    inputs: dict[str, Input] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    target_step: int | None = None
    links: int = 1
    continuation: str = "none"
    lead_seconds: float = 120.0
    core_python: str = ""
    stage_python: str = ""
    retries: dict[str, int] = field(default_factory=dict)
    stall_seconds: float | None = None
    quota_bytes: int | None = None
    seals: str = "full"
    schema: int = SCHEMA

    @property
    def trains(self) -> bool:
        """Whether the stage trains; ``target_step`` is None where its steps are counted when it starts (epochs)."""
        return self.target_step is not None or "epochs" in self.settings

    @property
    def seal_depth(self) -> Depth:
        """How much of each file a seal of this stage reads."""
        return Depth(self.seals)

    @property
    def stage_paths(self) -> StagePaths:
        return StagePaths(Path(self.stage_dir))

    @property
    def store_paths(self) -> StorePaths:
        return StorePaths(Path(self.store_dir))


def save(path: Path, spec: StageSpec) -> None:
    """Write a spec atomically."""
    files.write_record(path, spec)


def load(path: Path) -> StageSpec:
    """The spec in a file.

    Raises:
        ValueError: not a spec of this schema; the message names the file.
        FileNotFoundError: no such file.
    """
    value = files.read_json(path)
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read(value: Any) -> StageSpec:
    """The spec that was written as JSON, from what JSON says. Raises ValueError: not a spec of this schema."""
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema {value['schema']}, this version reads {SCHEMA}")
        inputs = {role: Input(**entry) for role, entry in value["inputs"].items()}
        sources = tuple(Source(**entry) for entry in value["sources"])
        return StageSpec(**{**value, "inputs": inputs, "sources": sources})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a stage spec: {error}") from error
