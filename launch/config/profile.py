"""The cluster profile: how jobs run at a site. Everything that ends up in an ``#SBATCH`` line is one line of text.

Layers, the last that says something wins: what is built in, the files that ``extends`` names, the file itself, the
``cluster:`` and ``resources:`` of the pipeline, ``--set`` of the command line (``launch.config.document.layers``).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from jobs.core.hashing import Depth
from launch.config.allowed import allows
from launch.config.document.positions import KeyPath
from launch.config.document.typed import fields_of, key
from launch.config.fields import (
    RESOURCE_KEYS,
    Amount,
    Count,
    Duration,
    JobName,
    Line,
    MemoryAmount,
    ModuleName,
    Positive,
    ResourceKeys,
    Resources,
    SiteKeys,
    Slug,
    memory_bytes,
)
from launch.config.kinds import DATA_KINDS, TRAINING_KINDS
from launch.config.mounts import Runtime
from launch.config.profile_fields import (
    CORE,
    DATA,
    DEFAULT,
    TRAINING,
    ClusterName,
    Containers,
    Continuation,
    Environment,
    EnvironmentName,
    Exclusive,
    ExecutorChoice,
    ExecutorKind,
    FailureName,
    FileSystem,
    GpuRequest,
    GpuRequestField,
    Group,
    MemoryRule,
    NodeValue,
    Notify,
    OptionName,
    OptionValue,
    Partition,
    PerCpu,
    PerGpu,
    SharedPath,
    Signal,
    SrunOptions,
    Submission,
    VariableValue,
    rolling,
)
from launch.config.secrets import SecretName

__all__ = ["Continuation", "Environment", "ExecutorChoice", "ExecutorKind", "Profile", "Resources", "partitions_of"]


def partitions_of(resources: Resources) -> tuple[str, ...]:
    """Names of the partitions that a job may go to: Slurm takes several, with commas, and chooses."""
    return tuple(name.strip() for name in (resources.partition or "").split(",") if name.strip())


def _launches(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("launcher: write the command that starts one process on each node, such as [ibrun]")
    return value


allows(_launches, minItems=1)


def _core_is_an_interpreter(value: dict[str, Environment]) -> dict[str, Environment]:
    core = value.get(CORE)
    if core is not None and (core.image is not None or core.modules):
        raise ValueError(f"{CORE} runs outside of the work: it has venv or python, neither image nor modules")
    return value


class Profile(SiteKeys):
    """One cluster profile; ``docs/profiles.md`` says what each key does."""

    name: Slug
    executor: ExecutorKind
    workspace: SharedPath | None = None
    partitions: dict[Line, Partition] = key(default_factory=dict)
    gpu_request: GpuRequestField = GpuRequest()
    exclusive: Exclusive = Exclusive.NEVER
    mem: MemoryRule = MemoryRule.ASKED
    per_cpu: PerCpu = PerCpu()
    per_gpu: PerGpu = PerGpu()
    clusters: ClusterName | None = None
    job_name: JobName = JobName()
    launcher: Annotated[tuple[Line, ...], _launches] = ("srun",)
    srun_options: SrunOptions = SrunOptions()
    containers: Containers = Containers()
    resources: dict[Group, ResourceKeys] = key(default_factory=dict)
    executors: dict[Group, ExecutorChoice] = key(default_factory=dict)
    environments: Annotated[dict[ModuleName, Environment], _core_is_an_interpreter] = key(default_factory=dict)
    file_systems: dict[ModuleName, FileSystem] = key(default_factory=dict)
    continuation: Continuation = Continuation.REQUEUE
    links: Count = 3
    lead: Duration = Duration("2:00")
    retries: dict[FailureName, Amount] = key(default_factory=dict)
    stall_after: Duration | None = None
    seals: Depth = Depth.FULL
    quota: MemoryAmount | None = None
    requeue_refused: tuple[Line, ...] = ()
    kill_on_invalid_dep: bool = True
    submission: Submission = "all"
    signal: Signal | None = None
    notify: Notify = Notify()
    sbatch: dict[OptionName, OptionValue] = key(default_factory=dict)
    srun: tuple[Line, ...] = ()
    remove: tuple[OptionName, ...] = ()
    env: dict[EnvironmentName, VariableValue] = key(default_factory=dict)
    node_env: dict[EnvironmentName, NodeValue] = key(default_factory=dict)
    node_scratch: NodeValue | None = None
    secrets: tuple[SecretName, ...] = ()
    modules: tuple[Line, ...] = ()
    setup: tuple[Line, ...] = ()
    devcluster: bool = False
    poll_seconds: Positive = 30.0
    poll_floor: Duration | None = None
    offline: bool = True

    @property
    def core_python(self) -> str:
        """What runs our own code on the first node of a job: ``environments.core``, else the Python that runs here."""
        core = self.environments.get(CORE)
        return sys.executable if core is None else core.interpreter

    def _check(self) -> None:
        starts = (Runtime.PYXIS, Runtime.ENGINE)
        if self.launcher != ("srun",) and self.containers.runtime in starts:
            raise ValueError(
                f"launcher: {self.launcher[0]!r} cannot start containers of {self.containers.runtime.value}"
            )
        if self.node_scratch is not None and self.containers.runtime is not Runtime.NONE:
            raise ValueError("node_scratch: a container cannot be told a directory whose name only the node knows")

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

    def image_of(self, backend: str, resources: Resources) -> str | None:
        """The image that the work of a back end runs in: that of the job, else of its environment."""
        environment = self.environments.get(backend)
        return resources.image or (None if environment is None else environment.image)

    def links_of(self, continuation: str) -> int:
        """How many jobs a stage that goes on in that way gets at once."""
        return self.links if continuation == Continuation.CHAIN else 1

    @property
    def rolling(self) -> int | None:
        """How many jobs of a run may be in the queue at a time; None: all of them."""
        return rolling(self.submission)

    def resources_for(self, kind: str, stage: ResourceKeys | None = None) -> Resources:
        """The last of these that sets a value wins: profile, ``default``, ``training`` or ``data``, the kind, the
        stage."""
        found: dict[str, Any] = {}
        for _, values in self._layers(kind, stage):
            found |= values
        if "cpus" not in found and self.per_gpu.cpus is not None and found.get("gpus_per_node"):
            found["cpus"] = self.per_gpu.cpus * found["gpus_per_node"]
        return Resources().changed(**found)  # of values that were checked in their files

    def segment(self, resources: Resources) -> Resources:
        """What one job asks for of a stage that goes on in the next: no more time than its partition allows."""
        found = [self.partitions.get(name) for name in partitions_of(resources)]
        limits = [one.longest(resources.nodes) for one in found if one is not None]
        seconds = resources.time_seconds
        if seconds is None or not limits or len(limits) < len(found) or None in limits:
            return resources
        longest = max(filter(None, limits), key=lambda one: one.seconds)
        return resources.changed(time=longest) if seconds > longest.seconds else resources

    def resource_paths(self, kind: str, stage: str, keys: ResourceKeys | None) -> dict[str, KeyPath]:
        """The key of each value of ``resources_for``: of the profile, or ``("stages", stage, key)`` of the pipeline."""
        found: dict[str, KeyPath] = {}
        for group, values in self._layers(kind, keys):
            above: KeyPath = ("stages", stage) if group == "stage" else ("resources", group) if group else ()
            found |= {key: (*above, key) for key in values}
        if self.per_gpu.cpus is not None:
            found.setdefault("cpus", ("per_gpu", "cpus"))
        return found

    def _layers(self, kind: str, stage: ResourceKeys | None) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "", {key: value for key in fields_of(SiteKeys) if (value := getattr(self, key)) is not None}
        for group in reversed(_groups(kind)):
            if group in self.resources:
                yield group, _given(self.resources[group])
        if stage is not None:
            yield "stage", _given(stage)

    def executor_for(self, kind: str, stage_says: str | None = None) -> str:
        """``local``, or the executor: the stage's, else the profile's, else NeMo-Run for training and submitit for
        others."""
        if self.executor is ExecutorKind.LOCAL:
            return ExecutorKind.LOCAL.value
        if stage_says is not None:
            return stage_says
        for group in _groups(kind):
            if group in self.executors:
                return self.executors[group].value
        return (ExecutorChoice.NEMO_RUN if kind in TRAINING_KINDS else ExecutorChoice.SUBMITIT).value


def _given(keys: ResourceKeys) -> dict[str, Any]:
    return {key: value for key in RESOURCE_KEYS if (value := getattr(keys, key)) is not None}


def _groups(kind: str) -> tuple[str, ...]:
    """Keys of ``resources`` and ``executors`` that speak of a kind, the most particular first."""
    if kind in TRAINING_KINDS:
        return (kind, TRAINING, DEFAULT)
    return (kind, DATA, DEFAULT) if kind in DATA_KINDS else (kind, DEFAULT)
