"""The files of one attempt: spec, host.sh, node.sh, and the request that an executor turns into a job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jobs.core import spec as specs
from jobs.core.files import write_atomic
from jobs.core.paths import Workspace
from jobs.core.spec import Input, StageSpec
from launch import render
from launch.errors import InputError
from launch.executors.base import JobRequest
from launch.plan import Plan, PlannedStage
from launch.profile import Profile
from launch.rundir import Run

OFFLINE = (("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1"))
"""Compute nodes have no internet: a look at the hub would hang for minutes; what is needed has been fetched."""


RAY_SECONDS = 300
"""How long the nodes of a Ray cluster may take to find each other: importing Ray from a cold file system takes one."""


@dataclass(frozen=True)
class StageScripts:
    """Texts of the two scripts of a stage, the same for every executor."""

    host: str
    node: str


def stage_spec(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str, links: int) -> StageSpec:
    """The spec of one attempt at a stage."""
    workspace = run.workspace
    inputs = {
        role: Input(
            stage=entry.stage,
            store=str(_entry(workspace, entry.kind, entry.fingerprint)),
            kind=entry.kind,
            format=entry.format,
            fingerprint=entry.fingerprint,
        )
        for role, entry in stage.inputs.items()
    }
    return StageSpec(
        run=run.id, pipeline=plan.pipeline, stage=stage.name, kind=stage.kind, backend=stage.backend, attempt=attempt,
        fingerprint=stage.fingerprint, stage_dir=str(run.paths.stage(stage.name).root),
        store_dir=str(_entry(workspace, stage.produces_kind, stage.fingerprint)),
        produces={"kind": stage.produces_kind, "format": stage.produces_format}, settings=dict(stage.settings),
        inputs=inputs, sources=stage.sources, target_step=stage.target_step, links=links,
        continuation=stage.continuation, lead_seconds=profile.lead_seconds,
        core_python=plan.core_python, stage_python=stage.python,
    )  # fmt: skip


def _entry(workspace: Workspace, kind: str, fingerprint: str) -> Path:
    return workspace.entry(kind, fingerprint).root


def environment(profile: Profile, stage: PlannedStage) -> list[tuple[str, str]]:
    """Variables that the scripts export, the profile's last."""
    resources = stage.resources
    values = dict(OFFLINE) if profile.offline else {}
    values["TOKENIZERS_PARALLELISM"] = "false"
    if resources.cpus:
        values["OMP_NUM_THREADS"] = str(max(1, resources.cpus // resources.processes_per_node))
    values.update(profile.env)
    return sorted(values.items())


def stage_scripts(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str) -> StageScripts:
    """Render host.sh and node.sh of one attempt.

    Raises:
        InputError: a value with a control character.
    """
    paths = run.paths.stage(stage.name)
    common = {
        "stage": stage.name,
        "stage_dir": paths.root,
        "boot": run.paths.boot,
        "spec": paths.scripts(attempt).spec,
        "environment": environment(profile, stage),
    }
    host = render.template(
        "host.sh.j2", **common, core_python=plan.core_python, watch_seconds=max(1, round(profile.poll_seconds)),
        seal=run.workspace.entry(stage.produces_kind, stage.fingerprint).seal,
    )  # fmt: skip
    node = render.template(
        "node.sh.j2", **common, stage_python=stage.python, launcher=stage.launcher,
        nodes=stage.resources.nodes, processes=stage.resources.processes_per_node, ray_seconds=RAY_SECONDS,
    )  # fmt: skip
    return StageScripts(host, node)


def write(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str, links: int) -> None:
    """Write the files of one attempt; the executor adds ``job.sh``."""
    paths = run.paths.stage(stage.name)
    scripts = paths.scripts(attempt)
    scripts.root.mkdir(parents=True)
    paths.logs.mkdir(exist_ok=True)
    run.workspace.entry(stage.produces_kind, stage.fingerprint).root.mkdir(parents=True, exist_ok=True)
    texts = stage_scripts(run, plan, stage, profile, attempt)
    specs.save(scripts.spec, stage_spec(run, plan, stage, profile, attempt, links))
    write_atomic(scripts.host, texts.host)
    write_atomic(scripts.node, texts.node, mode=0o755)


def job_name(run: str, stage: str, attempt: str, link: int) -> str:
    """Unique in the queue, and readable there."""
    return f"on-{run}-{stage}-{attempt}" + (f"-{link}" if link else "")


def request(
    run: Run, stage: PlannedStage, profile: Profile, attempt: str, link: int, dependency: str | None
) -> JobRequest:
    """What to ask Slurm for.

    Raises:
        InputError: no time limit anywhere: Slurm would take the partition's, and the plan could not tell segments.
    """
    resources = stage.resources
    if resources.time_seconds is None:
        raise InputError(
            f"stage {stage.name!r} has no time limit",
            hint=f"set resources.default.time in the profile {profile.name!r}, or time: in the stage",
        )
    paths = run.paths.stage(stage.name)
    return JobRequest(
        name=job_name(run.id, stage.name, attempt, link),
        stage_dir=paths.root,
        scripts_dir=paths.scripts(attempt).root,
        link=link,
        nodes=resources.nodes,
        processes_per_node=resources.processes_per_node,
        time_minutes=math.ceil(resources.time_seconds / 60),
        cpus=resources.cpus,
        gpus_per_node=resources.gpus_per_node,
        mem=resources.mem,
        partition=resources.partition,
        account=profile.account,
        qos=profile.qos,
        reservation=profile.reservation,
        constraint=profile.constraint,
        # Also a stage that cannot go on from a save is started again after a preemption or a lost node.
        requeue=profile.continuation.value == "requeue",
        dependency=dependency,
        kill_on_invalid_dep=profile.kill_on_invalid_dep,
        sbatch={key: False if value is None else value for key, value in profile.sbatch.items()},
        srun=profile.srun,
        remove=profile.remove,
        setup=profile.setup,
    )
