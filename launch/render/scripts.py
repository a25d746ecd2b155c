"""The files of one attempt: spec, host.sh, node.sh, and the request that an executor turns into a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core.files import record_text, write_together
from jobs.core.paths import ScriptPaths
from jobs.core.spec import Input, StageSpec
from launch.base.errors import InputError
from launch.config.mounts import Mount, Runtime
from launch.config.profile import Continuation, ExecutorKind, Profile, Resources
from launch.config.profile_fields import Exclusive, GpuForm, MemoryRule
from launch.plan.model import Plan, PlannedStage
from launch.render import containers, templates
from launch.render.containers import Container
from launch.render.request import JobRequest
from launch.runs import client
from launch.runs.rundir import Run

OFFLINE = (("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1"))
"""Compute nodes have no internet: a look at the hub would hang for minutes; what is needed has been fetched."""


RAY_SECONDS = 300
"""How long the nodes of a Ray cluster may take to find each other: importing Ray from a cold file system takes one."""


@dataclass(frozen=True)
class StageScripts:
    """Texts of the scripts of a stage, for every executor, and of a container engine's definition file, or empty."""

    host: str
    node: str
    container: str

    def write(self, place: ScriptPaths, *more: tuple[Path, str, int]) -> None:
        """Make the directory of an attempt with these and ``more``."""
        own = [(place.container, self.container, 0o644)] if self.container else []
        write_together(place.root, (place.host, self.host, 0o644), (place.node, self.node, 0o755), *own, *more)


def stage_spec(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str, links: int) -> StageSpec:
    """The spec of one attempt at a stage."""
    workspace = run.workspace
    inputs = {
        role: Input(entry.stage, str(entry.store(workspace).root), entry.kind, entry.format, entry.fingerprint)
        for role, entry in stage.inputs.items()
    }
    return StageSpec(
        run=run.id,
        pipeline=plan.pipeline,
        stage=stage.name,
        kind=stage.kind,
        backend=stage.backend,
        attempt=attempt,
        fingerprint=stage.fingerprint,
        stage_dir=str(run.paths.stage(stage.name).root),
        store_dir=str(stage.store(workspace).root),
        produces={"kind": stage.produces_kind, "format": stage.produces_format},
        settings=dict(stage.settings),
        inputs=inputs,
        sources=stage.sources,
        target_step=stage.target_step,
        links=links,
        continuation=stage.continuation,
        lead_seconds=profile.lead.seconds,
        core_python=plan.core_python,
        stage_python=stage.python,
        retries=dict(profile.retries),
        stall_seconds=None if profile.stall_after is None else float(profile.stall_after.seconds),
        seals=profile.seals.value,
        quota_bytes=profile.quota_bytes_of(run.workspace.root),
    )


def environment(profile: Profile, stage: PlannedStage) -> list[tuple[str, str]]:
    """Variables that the scripts export, the profile's last."""
    resources = stage.resources
    values = dict(OFFLINE) if profile.offline else {}
    values["TOKENIZERS_PARALLELISM"] = "false"
    if resources.cpus:
        values["OMP_NUM_THREADS"] = str(max(1, resources.cpus // resources.processes_per_node))
    values.update(profile.env)
    return sorted(values.items())


def container_of(run: Run, stage: PlannedStage, profile: Profile) -> Container | None:
    """The container of a stage; None: it has none. Raises InputError: no runtime for its image, or an unusable path."""
    image = profile.image_of(stage.backend, stage.resources)
    if image is None or profile.executor is ExecutorKind.LOCAL:
        return None
    site = profile.containers
    if site.runtime is Runtime.NONE:
        raise InputError(
            f"stage {stage.name!r} has the image {image!r}, and profile {profile.name!r} has no runtime for it",
            hint=f"containers: {{runtime: {' | '.join(one.value for one in Runtime if one is not Runtime.NONE)}}}",
        )
    scratch = () if profile.scratch is None else (Mount(profile.scratch, profile.scratch),)
    return Container(
        runtime=site.runtime,
        image=image,
        workdir=run.paths.stage(stage.name).root,
        mounts=containers.mounts(
            run.workspace.root,
            _code(run),
            (Path(source.path) for source in stage.sources),
            (*scratch, *(Mount.parse(text) for text in site.mounts)),
        ),
        variables=site.variables,
        gpus=site.gpus,
        executable=site.executable,
        options=site.options,
        remove=profile.remove,
    )


def _code(run: Run) -> Iterator[Path]:
    """Where the code of a run lies: the links to our snapshot and to the user's, and what they lead to."""
    yield run.paths.toolkit.parent
    for link in (run.paths.toolkit, run.paths.user_code):
        if link.is_symlink():
            yield link.resolve()


def stage_scripts(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str) -> StageScripts:
    """Texts of host.sh and node.sh. Raises InputError: a value with a control character, or an impossible container."""
    paths = run.paths.stage(stage.name)
    common = {
        "stage": stage.name,
        "stage_dir": paths.root,
        "boot": run.paths.boot,
        "spec": paths.scripts(attempt).spec,
        "environment": environment(profile, stage),
    }
    container = container_of(run, stage, profile)
    secrets = run.paths.secrets if profile.secrets or run.paths.secrets.exists() else None
    host = templates.template(
        "host.sh.j2",
        **common,
        core_python=plan.core_python,
        watch_seconds=max(1, round(profile.poll_seconds)),
        requeue_refused=profile.requeue_refused,
        floor=None if profile.poll_floor is None else profile.poll_floor.seconds,
        asked=client.asked_file(profile),
        seal=stage.store(run.workspace).seal,
        spread=stage.launcher == "torchrun",
        run=run.id,
        onward=_onward(run, plan, profile),
        tell=_tell(run, plan),
        is_last=stage.is_last,
        notify=profile.notify.command,
        notify_on=profile.notify.told(stage.is_last),
    )
    node = templates.template(
        "node.sh.j2",
        **common,
        secrets=secrets,
        **entering(run, stage, profile, attempt),
        stage_python=stage.python,
        launcher=stage.launcher,
        scratch=profile.scratch,
        node_scratch=profile.node_scratch,
        node_environment=sorted(profile.node_env.items()),
        nodes=stage.resources.nodes,
        gpus=stage.resources.gpus_per_node or 0,
        node_gpus=_gpus_of_node(stage, profile),
        processes=stage.resources.processes_per_node,
        ray_seconds=RAY_SECONDS,
    )
    return StageScripts(host, node, "" if container is None else containers.environment_text(container))


def _gpus_of_node(stage: PlannedStage, profile: Profile) -> int:
    """GPUs that a stage has on each node: those it asks for, or all where nodes are given with them."""
    if stage.resources.gpus_per_node or profile.gpu_request.form is not GpuForm.NONE:
        return stage.resources.gpus_per_node or 0
    place = profile.partitions.get(stage.resources.partition or "")
    return 0 if place is None else place.gpus or 0


def _onward(run: Run, plan: Plan, profile: Profile) -> tuple[str, ...]:
    """The command by which the end of a job submits the next stages; the job's id is put behind it."""
    if profile.rolling is None and not _waits_in_family(run):
        return ()
    resume = ("resume", run.id, "--workspace", str(run.workspace.root), "--from-job")
    return (plan.core_python, "-P", "-m", "launch.cli", *resume)


def _waits_in_family(run: Run) -> bool:
    """Whether a run is a chain of a sweep that has a bound on how many are in the queue."""
    if not run.paths.family.exists():
        return False
    from launch.runs import family

    found = family.of_run(run)
    return found is not None and found.record.at_once is not None


def _tell(run: Run, plan: Plan) -> tuple[str, ...]:
    """The command by which the end of a run writes its page and its letter."""
    notify = ("notify", run.id, "--workspace", str(run.workspace.root))
    return (plan.core_python, "-P", "-m", "launch.cli", *notify)


def entering(run: Run, stage: PlannedStage, profile: Profile, attempt: str) -> dict[str, Any]:
    """How node.sh comes to the stage's Python: modules of its back end, and the container where node.sh starts it."""
    container = container_of(run, stage, profile)
    environment = profile.environments.get(stage.backend)
    return {
        "modules": (*profile.modules, *(environment.modules if environment is not None else ())),
        "enter": containers.command(container) if container is not None else (),
        "variables": container.variables if container is not None else (),
        "prefix": container.prefix if container is not None else "",
        "node": run.paths.stage(stage.name).scripts(attempt).node,
    }


def write(run: Run, plan: Plan, stage: PlannedStage, profile: Profile, attempt: str, links: int) -> None:
    """Write the files of one attempt; the executor adds ``job.sh``."""
    paths = run.paths.stage(stage.name)
    scripts = paths.scripts(attempt)
    texts = stage_scripts(run, plan, stage, profile, attempt)
    text = record_text(stage_spec(run, plan, stage, profile, attempt, links))
    texts.write(scripts, (scripts.spec, text, 0o644))
    paths.logs.mkdir(exist_ok=True)


def _site_options(profile: Profile, resources: Resources) -> dict[str, str | bool]:
    """GPUs, memory and whole nodes in the words of the site."""
    gpus = resources.gpus_per_node or 0
    found: dict[str, str | bool] = {**profile.gpu_request.options(resources.nodes, gpus)}
    if profile.mem is MemoryRule.NEVER:
        found["mem"] = False
    elif profile.mem is MemoryRule.NODE and resources.mem is None:
        found["mem"] = "0"
    elif resources.mem is None and gpus and profile.per_gpu.mem is not None:
        found["mem-per-gpu"] = profile.per_gpu.mem
    elif resources.mem is None and profile.per_cpu.mem is not None:
        found["mem-per-cpu"] = profile.per_cpu.mem
    if profile.clusters is not None:
        found["clusters"] = profile.clusters
    whole = {
        Exclusive.NEVER: False, Exclusive.GPU: gpus > 0, Exclusive.MULTI_NODE: resources.nodes > 1,
        Exclusive.ALWAYS: True,
    }  # fmt: skip
    return found | ({"exclusive": True} if whole[profile.exclusive] else {})


def _notices(profile: Profile, stage: PlannedStage, link: int) -> dict[str, str]:
    """What Slurm is to tell: the user by mail, of a chain of jobs about the last one; the work before its end."""
    is_chain = stage.continuation == Continuation.CHAIN.value
    found = {} if is_chain and link + 1 < profile.links else profile.notify.mail_options(stage.is_last)
    # The daemons of Ray die of it.
    if profile.signal is not None and stage.trains and stage.launcher != "ray":
        found["signal"] = profile.signal.text
    return found


def request(
    run: Run, stage: PlannedStage, profile: Profile, attempt: str, link: int, dependency: str | None
) -> JobRequest:
    """What to ask Slurm for. Raises InputError: no time limit; Slurm's default would make the plan's segments wrong."""
    resources, paths = stage.resources, run.paths.stage(stage.name)
    container = container_of(run, stage, profile)
    enter = () if container is None else containers.srun_arguments(container, paths.scripts(attempt).container)
    if resources.time is None:
        raise InputError(
            f"stage {stage.name!r} has no time limit",
            hint=f"set resources.default.time in the profile {profile.name!r}, or time: in the stage",
        )
    return JobRequest(
        name=profile.job_name.of(run.id, stage.name, attempt, link),
        stage_dir=paths.root,
        scripts_dir=paths.scripts(attempt).root,
        link=link,
        resources=resources,
        # Also a stage that cannot go on from a save is started again after a preemption or a lost node.
        requeue=profile.continuation.value == "requeue",
        dependency=dependency,
        kill_on_invalid_dep=profile.kill_on_invalid_dep,
        site={**_site_options(profile, resources), **_notices(profile, stage, link)},
        sbatch={key: False if value is None else value for key, value in profile.sbatch.items()},
        step=(*profile.srun_options.arguments(), *enter),
        srun=profile.srun,
        launcher=profile.launcher,
        remove=profile.remove,
        setup=profile.setup,
    )
