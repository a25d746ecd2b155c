"""A run made of what was planned, ready to be brought forward: on Slurm, or on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.plan.model import Plan, Planned
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.submit import prepare
from launch.submit.prepare import PipelineOnCluster


@dataclass(frozen=True)
class Begun:
    """A run on Slurm of which nothing is submitted yet. ``seconds``: what its directory took."""

    run: Run
    plan: Plan
    profile: Profile
    gateway: Gateway
    seconds: float


def on_slurm(wanted: PipelineOnCluster, note: Callable[[str], None]) -> Begun:
    """A new run on Slurm. ``note`` is told what is allowed and worth knowing.

    Raises:
        InputError: a file is invalid, an input was not fetched, a stage is over a limit, or the profile has no Slurm.
    """
    from launch.config import ranges
    from launch.render import provenance
    from launch.runs import client, rundir, secret_files

    planned = prepare.plan(wanted)
    prepare.refuse_missing(planned, wanted)
    for one in ranges.notes(planned.pipeline):
        note(one)
    refuse(planned, wanted, note)
    values = prepare.secrets(planned)
    gateway = client.gateway(planned.profile.profile, values)
    began = time.monotonic()
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    provenance.save(run, planned.plan, planned.profile, planned.pipeline)
    secret_files.write(run.paths, values)
    return Begun(run, planned.plan, planned.profile.profile, gateway, time.monotonic() - began)


def refuse(
    planned: Planned, wanted: PipelineOnCluster, note: Callable[[str], None], seen: Collection[str] = ()
) -> None:
    """Raises InputError: what a partition, a GPU or a back end would refuse later. ``seen``: fingerprints of stages
    about which the back ends were asked before."""
    from launch.plan import limits
    from launch.render import dry_run, executors

    profile = planned.profile.profile
    if profile.executor == "local":
        raise InputError(f"the profile {profile.name!r} has no Slurm", hint=wanted.command("run"))
    executors.refuse_missing({stage.executor for stage in planned.plan.stages})
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    if any(one.gpu_memory for one in profile.partitions.values()):  # else nothing is known that may be too small
        from launch.plan import estimates, evaluating

        estimates.refuse(planned.plan, profile, planned.workspace)
        evaluating.refuse(evaluating.needs(planned.plan, profile, planned.workspace), planned.plan)
    new = replace(planned.plan, stages=tuple(one for one in planned.plan.stages if one.fingerprint not in seen))
    for one in dry_run.refuse(new, profile, planned.workspace, planned.pipeline):
        note(one)


def refuse_slurm(planned: Planned, wanted: PipelineOnCluster) -> None:
    """Raises InputError: the profile is of a Slurm cluster, and stages cannot run here under it."""
    if planned.profile.profile.executor != "local":
        raise InputError(f"the profile {wanted.cluster!r} is of a Slurm cluster", hint=wanted.command("submit"))


def here(wanted: PipelineOnCluster, note: Callable[[str], None]) -> Run:
    """A new run on this machine. ``note``: as of ``on_slurm``.

    Raises:
        InputError: a file is invalid, an input was not fetched, or the profile is of a Slurm cluster.
    """
    from launch.config import ranges
    from launch.render import dry_run
    from launch.runs import rundir, secret_files

    planned = prepare.plan(wanted)
    refuse_slurm(planned, wanted)
    prepare.refuse_missing(planned, wanted)
    for one in ranges.notes(planned.pipeline):
        note(one)
    for one in dry_run.refuse(planned.plan, planned.profile.profile, planned.workspace, planned.pipeline):
        note(one)
    values = prepare.secrets(planned)
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    secret_files.write(run.paths, values)
    return run
