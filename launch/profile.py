"""The cluster profile: how jobs run at a site. Everything that ends up in an ``#SBATCH`` line is one line of text.

Layers, the last that says something wins: what is built in, the files that ``extends`` names, the file itself, the
``cluster:`` and ``resources:`` of the pipeline, ``--set`` of the command line (``launch.layers``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.core.seal import Depth
from launch import layers, removable
from launch.base.errors import InputError
from launch.base.text import suggest
from launch.failure_names import FailureName
from launch.fields import (
    RESOURCE_KEYS,
    Amount,
    Count,
    Duration,
    Flag,
    Line,
    Memory,
    Model,
    ModuleName,
    Positive,
    ResourceKeys,
    Slug,
    memory_bytes,
    parse_duration,
)
from launch.kinds import DATA_KINDS, TRAINING_KINDS
from launch.load import Document, KeyPath, Marks, failure
from launch.profile_fields import (
    DATA,
    DEFAULT,
    TRAINING,
    Addition,
    Carrier,
    Containers,
    Continuation,
    Environment,
    EnvironmentName,
    Exclusive,
    ExecutorKind,
    FileSystem,
    GpuRequest,
    GpuRequestField,
    Group,
    MemoryRule,
    Notify,
    OptionName,
    Partition,
    SharedPath,
    Signal,
    SrunOptions,
    Submission,
    Value,
    rolling,
)
from launch.secrets import SecretName
from launch.validate import validate

__all__ = [
    "Carrier", "Continuation", "Environment", "ExecutorKind", "Profile", "ProfileFile", "Resources", "available",
    "find", "locate", "partitions_of", "read_profile", "user_directory",
]  # fmt: skip

#: Keys of a profile that are the default of the resource of that name.
_DEFAULTS = ("partition", "account", "qos", "reservation", "constraint")


@dataclass(frozen=True)
class Resources:
    """What one job asks for, all layers put together."""

    nodes: int = 1
    processes_per_node: int = 1
    partition: str | None = None
    cpus: int | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    time: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    image: str | None = None

    @property
    def time_seconds(self) -> int | None:
        return None if self.time is None else parse_duration(self.time)

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


def partitions_of(resources: Resources) -> tuple[str, ...]:
    """Names of the partitions that a job may go to: Slurm takes several, with commas, and chooses."""
    return tuple(name.strip() for name in (resources.partition or "").split(",") if name.strip())


class Profile(Model):
    """One cluster profile; ``docs/profiles.md`` says what each key does."""

    name: Slug
    executor: ExecutorKind
    workspace: SharedPath | None = None
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    reservation: Line | None = None
    constraint: Line | None = None
    partitions: dict[Line, Partition] = Field(default_factory=dict)
    gpu_request: GpuRequestField = GpuRequest()
    exclusive: Exclusive = Exclusive.NEVER
    mem: MemoryRule = MemoryRule.ASKED
    srun_options: SrunOptions = SrunOptions()
    containers: Containers = Containers()
    resources: dict[Group, ResourceKeys] = Field(default_factory=dict)
    executors: dict[Group, Carrier] = Field(default_factory=dict)
    environments: dict[ModuleName, Environment] = Field(default_factory=dict)
    file_systems: dict[ModuleName, FileSystem] = Field(default_factory=dict)
    continuation: Continuation = Continuation.REQUEUE
    links: Count = 3
    lead: Duration = "2:00"
    retries: dict[FailureName, Amount] = Field(default_factory=dict)
    stall_after: Duration | None = None
    seals: Depth = Depth.FULL
    quota: Memory | None = None
    kill_on_invalid_dep: Flag = True
    submission: Submission = "all"
    signal: Signal | None = None
    notify: Notify = Notify()
    sbatch: dict[OptionName, Addition] = Field(default_factory=dict)
    srun: tuple[Line, ...] = ()
    remove: tuple[OptionName, ...] = ()
    env: dict[EnvironmentName, Value] = Field(default_factory=dict)
    secrets: tuple[SecretName, ...] = ()
    modules: tuple[Line, ...] = ()
    setup: tuple[Line, ...] = ()
    devcluster: Flag = False
    poll_seconds: Positive = 30.0
    offline: Flag = True

    @property
    def stall_seconds(self) -> float | None:
        return None if self.stall_after is None else float(parse_duration(self.stall_after))

    @property
    def scratch(self) -> Path | None:
        """Where each node has a directory for its job; of several the first."""
        return next((one.path for one in self.file_systems.values() if one.scratch), None)

    def quota_bytes_of(self, path: Path) -> int | None:
        """The quota that holds for a path: ``quota``, else that of the innermost of ``file_systems`` around it."""
        if self.quota is not None:
            return memory_bytes(self.quota)
        around = [one for one in self.file_systems.values() if path.is_relative_to(one.path)]
        inner = max(around, key=lambda one: len(one.path.parts), default=None)
        return None if inner is None or inner.quota is None else memory_bytes(inner.quota)

    def links_of(self, continuation: str) -> int:
        """How many jobs a stage that goes on in that way gets at once."""
        return self.links if continuation == Continuation.CHAIN else 1

    @property
    def rolling(self) -> int | None:
        """How many jobs of a run may be in the queue at a time; None: all of them."""
        return rolling(self.submission)

    @property
    def lead_seconds(self) -> int:
        return parse_duration(self.lead)

    def resources_for(self, kind: str, stage: ResourceKeys | None = None) -> Resources:
        """Profile, then ``default``, then ``training`` or ``data``, then the kind, then the stage: the last that says
        so wins."""
        found: dict[str, Any] = {}
        for _, values in self._layers(kind, stage):
            found |= values
        return Resources(**found)

    def segment(self, resources: Resources) -> Resources:
        """What one job asks for of a stage that goes on in the next: no more time than its partition allows."""
        found = [self.partitions.get(name) for name in partitions_of(resources)]
        limits = [one.longest(resources.nodes) for one in found if one is not None]
        seconds = resources.time_seconds
        if seconds is None or not limits or len(limits) < len(found) or None in limits:
            return resources
        longest = max(filter(None, limits), key=parse_duration)
        return replace(resources, time=longest) if seconds > parse_duration(longest) else resources

    def resource_paths(self, kind: str, stage: str, keys: ResourceKeys | None) -> dict[str, KeyPath]:
        """Where each value of ``resources_for`` is set, as a path of the profile or, where the stage says it, of the
        pipeline (``("stages", stage, key)``)."""
        found: dict[str, KeyPath] = {}
        for group, values in self._layers(kind, keys):
            above: KeyPath = ("stages", stage) if group == "stage" else ("resources", group) if group else ()
            found |= {key: (*above, key) for key in values}
        return found

    def _layers(self, kind: str, stage: ResourceKeys | None) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "", {key: value for key in _DEFAULTS if (value := getattr(self, key)) is not None}
        for group in reversed(_groups(kind)):
            if group in self.resources:
                yield group, _given(self.resources[group])
        if stage is not None:
            yield "stage", _given(stage)

    def executor_for(self, kind: str, stage_says: str | None = None) -> str:
        """``local``, or who carries jobs of this kind: the stage's word, else the profile's, else training by NeMo-Run
        and all else by submitit."""
        if self.executor is ExecutorKind.LOCAL:
            return ExecutorKind.LOCAL.value
        if stage_says is not None:
            return stage_says
        for group in _groups(kind):
            if group in self.executors:
                return self.executors[group].value
        return (Carrier.NEMO_RUN if kind in TRAINING_KINDS else Carrier.SUBMITIT).value


@dataclass(frozen=True)
class ProfileFile:
    """A profile, all layers put together, and where each value came from.

    ``data`` holds what was written, without ``extends``: it reads as the same profile.
    """

    path: Path
    data: dict[str, Any]
    marks: Marks
    profile: Profile

    def where(self, *path: str | int) -> str:
        """``file:line:column`` of the value at ``path``, or of what is around it."""
        return str(self.marks.value(path))

    def origin(self, path: KeyPath) -> str | None:
        """``file:line:column`` of the very value at ``path``; None: it is built in."""
        found = self.marks.values.get(path)
        return None if found is None else str(found)

    def with_pipeline(self, data: dict[str, Any], marks: Marks) -> ProfileFile:
        """This profile under the ``cluster:`` and ``resources:`` of a pipeline file as it was read.

        Raises:
            InputError: a value is not what a profile takes; names the line of the pipeline.
        """
        above = layers.of_pipeline(Document(data, marks))
        if not above.data:
            return self
        merged = layers.overlay(Document(self.data, self.marks), above)
        hint = f"overnight plan PIPELINE --cluster {self.path}"
        return ProfileFile(self.path, merged.data, merged.marks, _validated(merged.data, merged.marks, hint))


def _validated(data: dict[str, Any], marks: Marks, hint: str, kept: bool = False) -> Profile:
    profile = validate(Profile, data, marks, hint=hint)
    # What a run was submitted with is not judged anew: another version's list would lock its user out.
    if not kept and (problems := removable.problems(profile)):
        raise failure(problems, marks, hint=hint)
    return profile


def _given(keys: ResourceKeys) -> dict[str, Any]:
    return {key: value for key in RESOURCE_KEYS if (value := getattr(keys, key)) is not None}


def _groups(kind: str) -> tuple[str, ...]:
    """Keys of ``resources`` and ``executors`` that speak of a kind, the most particular first."""
    if kind in TRAINING_KINDS:
        return (kind, TRAINING, DEFAULT)
    return (kind, DATA, DEFAULT) if kind in DATA_KINDS else (kind, DEFAULT)


def user_directory() -> Path:
    """Where a user keeps profiles."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "overnight" / "profiles"


def _directories() -> list[Path]:
    """Where profiles with names lie: packaged, of the site (``$OVERNIGHT_PROFILES``, /etc), of the user."""
    site = [Path(part) for part in os.environ.get("OVERNIGHT_PROFILES", "").split(os.pathsep) if part]
    packaged = Path(str(resources.files("cluster_profiles")))
    return [packaged, Path("/etc/overnight/profiles"), *reversed(site), user_directory()]


def available() -> dict[str, Path]:
    """Profiles that can be named; the user's before the site's, the site's before the packaged ones."""
    return {path.stem: path for directory in _directories() for path in _listed(directory)}


def _listed(directory: Path) -> Iterator[Path]:
    return iter(sorted(directory.glob("*.yaml")) if directory.is_dir() else [])


def locate(name_or_path: str, *, below: Path | None = None) -> Path:
    """File of a profile: a path as it is, else a name in the user's directory, the site's, or a packaged one.

    Args:
        below: only in directories that come after the one of this file, if it is in one: so that a user's ``juwels``
            can extend the packaged ``juwels``.

    Raises:
        InputError: there is none; names the nearest.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        return path if below is None else below.parent / path
    directories = _directories()
    if below is not None and below.stem == name_or_path:
        own = [number for number, directory in enumerate(directories) if directory.resolve() == below.parent.resolve()]
        directories = directories[: own[-1]] if own else directories
    known = {path.stem: path for directory in directories for path in _listed(directory)}
    if name_or_path not in known:
        raise InputError(
            f"there is no cluster profile {name_or_path!r}; {suggest(name_or_path, list(known))}",
            hint=f"--cluster NAME or --cluster FILE.yaml; your own go to {user_directory()}",
        )
    return known[name_or_path]


def read_profile(
    path: Path, overrides: tuple[str, ...] = (), text: str | None = None, kept: bool = False
) -> ProfileFile:  # fmt: skip
    """Read a profile and what it extends; one without a ``name`` is called like its file.

    Args:
        overrides: texts of ``--set``, paths of the profile.
        text: what the file is to say, in place of what it says; all that it extends is found as from the file.
        kept: it is that of a run, which was read when it was submitted.

    Raises:
        InputError: lists every fault with its line.
    """
    document = layers.read_all(path, lambda name, file: locate(name, below=file), overrides, text)
    data = {"name": path.stem, **document.data}
    hint = f"overnight plan PIPELINE --cluster {path}"
    return ProfileFile(path, data, document.marks, _validated(data, document.marks, hint, kept))


def find(name_or_path: str) -> Profile:
    """The profile of that name or path."""
    return read_profile(locate(name_or_path)).profile
