"""The cluster profile: how jobs run at a site. Everything that ends up in an ``#SBATCH`` line is one line of text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from launch.errors import InputError
from launch.fields import (
    RESOURCE_KEYS,
    Count,
    Duration,
    Flag,
    Line,
    Model,
    ModuleName,
    Positive,
    ResourceKeys,
    Slug,
    one_line,
    parse_duration,
)
from launch.kinds import DATA_KINDS, TRAINING_KINDS
from launch.load import Marks, read, suggest
from launch.secrets import SecretName
from launch.validate import validate

KINDS = (*DATA_KINDS, *TRAINING_KINDS, "evaluate", "convert")
DEFAULT, TRAINING = "default", "training"

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OPTION = re.compile(r"(?:--)?[a-z][a-z0-9-]*\Z")


class ExecutorKind(StrEnum):
    """Where jobs run."""

    LOCAL = "local"
    SLURM = "slurm"


class Carrier(StrEnum):
    """Which library renders and carries a Slurm job."""

    NEMO_RUN = "nemo_run"
    SUBMITIT = "submitit"


class Continuation(StrEnum):
    """How a stage goes on after its time limit: under the same job id, or in the next of several jobs."""

    REQUEUE = "requeue"
    CHAIN = "chain"


def _group(name: str) -> str:
    known = (DEFAULT, TRAINING, *KINDS)
    if name not in known:
        raise ValueError(f"{name!r} is no kind of job; {suggest(name, known)}")
    return name


def _expanded(value: Any) -> Any:
    """``~`` and ``$VARIABLE`` as on the login node; a variable that is not set is an error, not an empty name."""
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ValueError(f"{value!r}: the variable {name} is not set here")
        return os.environ[name]

    return Path(_VARIABLE.sub(variable, value)).expanduser()


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is relative: jobs start elsewhere, write the whole path")
    if any(character < " " for character in str(path)):
        raise ValueError(f"{str(path)!r} has a control character")
    return path


def _environment_name(name: str) -> str:
    if not _ENVIRONMENT_NAME.match(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    return name


def _option(name: str) -> str:
    if not _OPTION.match(name):
        raise ValueError(f"{name!r} is no long option of sbatch, such as gpus-per-node")
    return name.removeprefix("--")


def _addition(value: Any) -> Any:
    """One message for all that a raw option may be, in place of one for each member of the union."""
    if isinstance(value, str):
        return one_line(value)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f'expected text, true, false or nothing, got {value!r}; quote this value: "{value}"')
    return value


Group = Annotated[str, Strict(), AfterValidator(_group)]
SharedPath = Annotated[Path, BeforeValidator(_expanded), AfterValidator(_absolute)]
EnvironmentName = Annotated[str, Strict(), AfterValidator(_environment_name)]
OptionName = Annotated[str, Strict(), AfterValidator(_option)]
Addition = Annotated[str | bool | None, BeforeValidator(_addition)]
Value = Annotated[str, Strict(), AfterValidator(one_line)]


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

    @property
    def time_seconds(self) -> int | None:
        return None if self.time is None else parse_duration(self.time)

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


class Environment(Model):
    """The Python environment of a back end."""

    venv: SharedPath

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"


class Profile(Model):
    """One cluster profile."""

    name: Slug
    executor: ExecutorKind
    workspace: SharedPath | None = None
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    reservation: Line | None = None
    constraint: Line | None = None
    resources: dict[Group, ResourceKeys] = Field(default_factory=dict)
    executors: dict[Group, Carrier] = Field(default_factory=dict)
    environments: dict[ModuleName, Environment] = Field(default_factory=dict)
    continuation: Continuation = Continuation.REQUEUE
    links: Count = 3
    lead: Duration = "2:00"
    kill_on_invalid_dep: Flag = True
    sbatch: dict[OptionName, Addition] = Field(default_factory=dict)
    srun: tuple[Line, ...] = ()
    remove: tuple[OptionName, ...] = ()
    env: dict[EnvironmentName, Value] = Field(default_factory=dict)
    secrets: tuple[SecretName, ...] = ()
    setup: tuple[Line, ...] = ()
    devcluster: Flag = False
    poll_seconds: Positive = 30.0
    offline: Flag = True

    @property
    def lead_seconds(self) -> int:
        return parse_duration(self.lead)

    def resources_for(self, kind: str, stage: ResourceKeys | None = None) -> Resources:
        """Profile, then ``default``, then ``training``, then the kind, then the stage: the last that says so wins."""
        layers = [self.resources.get(group) for group in reversed(_groups(kind))]
        values: dict[str, Any] = {"partition": self.partition} if self.partition else {}
        for layer in [*layers, stage]:
            if layer is not None:
                values |= {key: value for key in RESOURCE_KEYS if (value := getattr(layer, key)) is not None}
        return Resources(**values)

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
    """A profile and where it came from."""

    path: Path
    data: dict[str, Any]
    marks: Marks
    profile: Profile

    def where(self, *path: str | int) -> str:
        """``file:line:column`` of the value at ``path``."""
        return str(self.marks.value(path))


def _groups(kind: str) -> tuple[str, ...]:
    """Keys of ``resources`` and ``executors`` that speak of a kind, the most particular first."""
    return (kind, TRAINING, DEFAULT) if kind in TRAINING_KINDS else (kind, DEFAULT)


def user_directory() -> Path:
    """Where a user keeps profiles."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "overnight" / "profiles"


def _packaged() -> Path:
    return Path(str(resources.files("cluster_profiles")))


def available() -> dict[str, Path]:
    """Profiles that can be named, the user's before the packaged ones."""
    return {path.stem: path for path in [*_listed(_packaged()), *_listed(user_directory())]}


def _listed(directory: Path) -> Iterator[Path]:
    return iter(sorted(directory.glob("*.yaml")) if directory.is_dir() else [])


def locate(name_or_path: str) -> Path:
    """File of a profile: a path as it is, else a name in the user's directory, else a packaged one.

    Raises:
        InputError: there is none; names the nearest.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path).expanduser()
    known = available()
    if name_or_path not in known:
        raise InputError(
            f"there is no cluster profile {name_or_path!r}; {suggest(name_or_path, list(known))}",
            hint=f"--cluster NAME or --cluster FILE.yaml; your own go to {user_directory()}",
        )
    return known[name_or_path]


def read_profile(path: Path) -> ProfileFile:
    """Read a profile; one without a ``name`` is called like its file.

    Raises:
        InputError: lists every fault with its line.
    """
    document = read(path)
    data = {"name": path.stem, **document.data}
    hint = f"overnight plan PIPELINE --cluster {path}"
    return ProfileFile(path, data, document.marks, validate(Profile, data, document.marks, hint=hint))


def find(name_or_path: str) -> Profile:
    """The profile of that name or path."""
    return read_profile(locate(name_or_path)).profile
