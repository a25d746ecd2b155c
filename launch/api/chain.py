"""A pipeline file with the values that a program changes, and what it would come to on a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from launch.base.errors import InputError

if TYPE_CHECKING:
    from launch.api.handle import RunHandle
    from launch.plan.estimates import Estimate
    from launch.plan.power import GatePower
    from launch.status.model import StageStatus
    from launch.status.outlook import Outlook
    from launch.submit.prepare import PipelineOnCluster


def pipeline(path: str | PathLike[str], workspace: str | PathLike[str] | None = None) -> Chain:
    """The chain of a pipeline file; the file is read when it is planned or submitted.

    Args:
        workspace: where runs and results are stored; None: ``$OVERNIGHT_WORKSPACE``, the profile's, or ``~/overnight``.
    """
    return Chain(Path(path), workspace=None if workspace is None else Path(workspace))


@dataclass(frozen=True)
class Chain:
    """A pipeline file with overrides. Frozen: ``set`` makes another."""

    path: Path
    overrides: tuple[str, ...] = ()
    workspace: Path | None = None

    def set(self, key: str, value: object) -> Chain:
        """The same chain with ``key`` (``stages.sft.lr``) set to ``value``, as by ``--set``. ``value``: a text, number,
        bool, None, list or mapping; whether it is allowed is said when the chain is planned."""
        return replace(self, overrides=(*self.overrides, f"{key}={_written(key, value)}"))

    def plan(self, cluster: str = "local") -> ChainPlan:
        """What would be submitted there. ``cluster``: name or file of a profile. No Slurm command is started.

        Raises:
            InputError: with file, line and column.
        """
        from launch.status import outlook
        from launch.submit import prepare

        wanted = self._on(cluster)
        return _planned(outlook.of(prepare.plan(wanted)), wanted)

    def fetch(self, cluster: str = "local") -> tuple[str, ...]:
        """Names of the base model and sources, now verified in the workspace; brings what is missing.

        Raises:
            DownloadFailed: the world outside did not deliver; again later may help.
        """
        from launch.inputs import fetch
        from launch.plan import gather
        from launch.runs.rundir import remember
        from launch.submit import prepare

        wanted = self._named(cluster)
        read, _, workspace = prepare.read(wanted)
        items = list({item.pin_key: item for item in gather.fetch_items(read).values()}.values())
        done = fetch.fetch(items, workspace, again=wanted.command("fetch"))
        remember(workspace)
        return tuple(one.item.name for one in done)

    def submit(self, cluster: str, on_change: Callable[[StageStatus], object] | None = None) -> RunHandle:
        """The run, submitted to Slurm; returns when the queue has every job.

        Args:
            on_change: called with each stage as it is submitted, adopted or found.

        Raises:
            InputError: a file is invalid, an input was not fetched, or a stage is over a limit.
            RejectedByCluster, ClusterUnreachable: the run is there; ``resume`` of it submits the rest.
        """
        from launch.api.handle import RunHandle
        from launch.submit import start

        begun = start.on_slurm(self._on(cluster), lambda note: None)
        handle = RunHandle(begun.run)
        handle._forward(begun.gateway, on_change)
        return handle

    def run(self, cluster: str = "local", on_change: Callable[[StageStatus], object] | None = None) -> RunHandle:
        """The run, once its stages have run on this machine, one after the other.

        Args:
            on_change: called with each stage as it begins and as it is sealed.

        Raises:
            InputError: as of ``submit``.
            OvernightError: a stage failed, with its evidence; ``overnight.open()`` is the run.
        """
        from launch.api.handle import RunHandle
        from launch.submit import start

        handle = RunHandle(start.here(self._on(cluster), lambda note: None))
        handle._here(on_change)
        return handle

    def _named(self, cluster: str) -> PipelineOnCluster:
        from launch.submit.prepare import PipelineOnCluster

        return PipelineOnCluster(self.path, cluster, self.overrides, self.workspace)

    def _on(self, cluster: str) -> PipelineOnCluster:
        """What ``_named`` says, if it is one chain. Raises InputError: it is a sweep."""
        from launch.plan.sweep import Sweep

        wanted = self._named(cluster)
        if Sweep.read(self.path, self.overrides).axes:
            raise InputError(
                f"{self.path} is a sweep: submit it by the command, or set one value each",
                hint=wanted.command("submit"),
            )
        return wanted


def _written(key: str, value: object) -> str:
    """As ``--set`` reads it. A text is quoted, so that it stays one (``"1"``, ``"null"``)."""
    if isinstance(value, PathLike):
        value = str(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} cannot be set to {value!r}: {error}") from error


@dataclass(frozen=True)
class StageOutlook:
    """A stage before it is submitted. ``state``: ``new``, ``sealed``, ``submitted by run ...``, ``missing input``;
    ``seconds``: of its training, from earlier runs; ``gpu_hours``: (least, most); ``time_limit``: seconds of one start.
    None: not known, or none."""

    name: str
    kind: str
    backend: str
    state: str
    parents: tuple[str, ...]
    settings: Mapping[str, Any]
    nodes: int
    gpus: int
    time_limit: float | None
    seconds: float | None
    gpu_hours: tuple[float, float] | None
    estimate: Estimate | None


@dataclass(frozen=True)
class ChainPlan:
    """What a chain comes to on a cluster. ``missing``: what has to be fetched first; ``limits``: for what a submission
    would be refused, one text a fault; ``gates``: what the examples of each can decide. ``print`` shows it as
    ``overnight plan`` does."""

    name: str
    workspace: Path
    stages: Mapping[str, StageOutlook]
    missing: tuple[str, ...]
    limits: tuple[str, ...]
    gates: tuple[GatePower, ...]
    notes: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def _planned(found: Outlook, wanted: PipelineOnCluster) -> ChainPlan:
    from launch.status import outlook

    estimates = {one.stage: one for one in found.estimates}
    stages = {}
    for stage in found.shown.stages:
        resources, estimate = stage.resources, estimates.get(stage.name)
        stages[stage.name] = StageOutlook(
            name=stage.name,
            kind=stage.kind,
            backend=stage.backend,
            state=found.states[stage.name],
            parents=stage.parents,
            settings=MappingProxyType(dict(stage.settings)),
            nodes=resources.nodes,
            gpus=resources.nodes * (resources.gpus_per_node or 0),
            time_limit=resources.time_seconds,
            seconds=found.expected[stage.name],
            gpu_hours=None if estimate is None else estimate.gpu_hours,
            estimate=estimate,
        )
    limits: tuple[str, ...] = ()
    try:
        found.refuse()
    except InputError as error:
        limits = tuple(str(error).splitlines())
    return ChainPlan(
        name=found.shown.pipeline,
        workspace=found.planned.workspace.root,
        stages=MappingProxyType(stages),
        missing=tuple(f"{item.name} ({item.request})" for item in found.shown.missing),
        limits=limits,
        gates=found.gates,
        notes=found.notes,
        text="\n".join(outlook.lines(found, wanted.command("fetch"))),
    )
