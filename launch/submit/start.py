"""A run made of what was planned, ready to be brought forward: on Slurm, or on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.plan.model import Plan
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
    from launch.plan import limits
    from launch.render import dry_run, provenance
    from launch.runs import client, rundir, secret_files

    planned = prepare.plan(wanted)
    profile = planned.profile.profile
    if profile.executor == "local":
        raise InputError(f"the profile {profile.name!r} has no Slurm", hint=wanted.command("run"))
    prepare.refuse_missing(planned, wanted)
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    if any(one.gpu_memory for one in profile.partitions.values()):  # else nothing is known that may be too small
        from launch.plan import estimates

        estimates.refuse(planned.plan, profile, planned.workspace)
    for one in dry_run.refuse(planned.plan, profile, planned.workspace, planned.pipeline):
        note(one)
    values = prepare.secrets(planned)
    gateway = client.gateway(profile, values)
    began = time.monotonic()
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    provenance.save(run, planned.plan, planned.profile, planned.pipeline)
    secret_files.write(run.paths, values)
    return Begun(run, planned.plan, profile, gateway, time.monotonic() - began)


def here(wanted: PipelineOnCluster) -> Run:
    """A new run on this machine.

    Raises:
        InputError: a file is invalid, an input was not fetched, or the profile is of a Slurm cluster.
    """
    from launch.runs import rundir, secret_files

    planned = prepare.plan(wanted)
    if planned.profile.profile.executor != "local":
        raise InputError(f"the profile {wanted.cluster!r} is of a Slurm cluster", hint=wanted.command("submit"))
    prepare.refuse_missing(planned, wanted)
    values = prepare.secrets(planned)
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    secret_files.write(run.paths, values)
    return run
