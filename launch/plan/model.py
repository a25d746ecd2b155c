"""The plan as data: jobs in order, what each reads and what it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core.capabilities import Capabilities, Memory
from jobs.core.paths import StorePaths, Workspace
from jobs.core.spec import Source
from launch.base.errors import InputError
from launch.base.text import suggest
from launch.config.profile import Resources

if TYPE_CHECKING:  # a plan is read where no pipeline is
    from launch.config.pipeline_file import PipelineFile
    from launch.config.profile_file import ProfileFile

REVISION = 1
"""Part of every fingerprint: raised when a change of ours makes old results invalid."""


@dataclass(frozen=True)
class BackEndFacts:
    """What ``probe`` said of a back end in the environment that the profile gives it."""

    versions: Mapping[str, str]
    python: str
    capabilities: Capabilities


@dataclass(frozen=True)
class FetchedFacts:
    """A thing that ``overnight fetch`` brings; ``fingerprint`` None: not resolved to an exact revision yet."""

    name: str
    request: str
    format: str
    fingerprint: str | None
    present: bool


@dataclass(frozen=True)
class Facts:
    """The world as far as the plan depends on it. ``fetched`` by name: ``base`` or the name of a source. ``code``:
    digest of the user's code, where results depend on it. ``tasks``: stage -> task -> what was found out about it;
    ``rubrics``: judge -> what its file of instructions says."""

    back_ends: Mapping[str, BackEndFacts]
    sources: Mapping[str, tuple[Source, ...]]
    fetched: Mapping[str, FetchedFacts]
    core_python: str
    code: str | None = None
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    rubrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedInput:
    """What a stage reads: another stage, or something fetched (``is_job`` False)."""

    stage: str
    kind: str
    format: str
    fingerprint: str
    is_job: bool

    def store(self, workspace: Workspace) -> StorePaths:
        """Its entry in the store."""
        return workspace.entry(self.kind, self.fingerprint)


@dataclass(frozen=True)
class PlannedStage:
    """One job of the chain. ``is_last``: no other stage waits for it. ``memory``, ``experimental``: what its back end
    says of itself (``jobs.core.capabilities.Capabilities``)."""

    name: str
    kind: str
    backend: str
    produces_kind: str
    produces_format: str
    fingerprint: str
    inputs: Mapping[str, PlannedInput]
    settings: Mapping[str, Any]
    resources: Resources
    executor: str
    continuation: str
    python: str
    launcher: str
    sources: tuple[Source, ...] = ()
    target_step: int | None = None
    inserted: bool = False
    is_last: bool = False
    memory: Memory | None = None
    experimental: str = ""

    @property
    def trains(self) -> bool:
        """Whether the stage trains; ``target_step`` is None where its steps are counted when it starts (epochs)."""
        return self.target_step is not None or "epochs" in self.settings

    @property
    def parents(self) -> tuple[str, ...]:
        """Stages whose jobs this one waits for, without repetition."""
        return tuple(dict.fromkeys(entry.stage for entry in self.inputs.values() if entry.is_job))

    def store(self, workspace: Workspace) -> StorePaths:
        """The entry of what it makes in the store."""
        return workspace.entry(self.produces_kind, self.fingerprint)


@dataclass(frozen=True)
class Plan:
    """The chain, parents first. ``code``: digest of the user's code; None: there is none, or it is not taken yet."""

    pipeline: str
    stages: tuple[PlannedStage, ...]
    fetched: tuple[FetchedFacts, ...] = ()
    core_python: str = ""
    code: str | None = None

    @property
    def missing(self) -> tuple[FetchedFacts, ...]:
        """What ``overnight fetch`` has to bring first."""
        return tuple(item for item in self.fetched if not item.present)

    def stage(self, name: str) -> PlannedStage:
        """The stage of that name. Raises KeyError: there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def find(self, name: str) -> PlannedStage:
        """The stage of that name, as a user typed it. Raises InputError: there is none; names the nearest."""
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise InputError(f"there is no stage {name!r} in this run; {suggest(name, names)}")
        return self.stage(name)

    @property
    def data_paths(self) -> list[Path]:
        """Files and directories that the chain reads and that are no code."""
        return data_paths((stage.sources for stage in self.stages), self.fetched)

    def below(self, names: set[str]) -> set[str]:
        """``names`` and every stage that reads from them, directly or not."""
        found = set(names)
        for stage in self.stages:
            if found & set(stage.parents):
                found.add(stage.name)
        return found


@dataclass(frozen=True)
class Planned:
    """A pipeline with its profile, planned."""

    pipeline: PipelineFile
    profile: ProfileFile
    workspace: Workspace
    plan: Plan


def data_paths(sources: Iterable[Iterable[Source]], fetched: Iterable[FetchedFacts]) -> list[Path]:
    """What is read as data or fetched as a model: no code, also where it lies in the tree of the code."""
    files = [Path(source.path) for group in sources for source in group]
    return [*files, *(Path(item.request) for item in fetched if item.request.startswith("/"))]


def fingerprint(**parts: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``parts``."""
    text = json.dumps({"revision": REVISION, **parts}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
