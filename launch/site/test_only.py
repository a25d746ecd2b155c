"""A job as the profile asks for one, without a pipeline: for ``--test-only`` and for the probe."""

from __future__ import annotations

from pathlib import Path

from launch.base.errors import RejectedByCluster
from launch.config.profile import Profile, Resources
from launch.config.profile_file import ProfileFile
from launch.plan.model import PlannedStage
from launch.render import provenance, refusal, scripts
from launch.render.request import JobRequest
from launch.runs.rundir import Run
from launch.slurm.client import Gateway

NAME = "probe"


def stage_of(
    profile: Profile, kind: str, resources: Resources, executor: str, backend: str, python: str
) -> PlannedStage:
    """A stage that has no inputs and makes nothing."""
    return PlannedStage(
        name=NAME,
        kind=kind,
        backend=backend,
        produces_kind=NAME,
        produces_format=NAME,
        fingerprint="0" * 64,
        inputs={},
        settings={},
        resources=resources,
        executor=executor,
        continuation=profile.continuation.value,
        python=python,
        launcher="python",
    )


def request_of(run: Run, stage: PlannedStage, profile: Profile, attempt: str) -> JobRequest:
    """What Slurm would be asked for such a stage in a pipeline.

    Raises:
        InputError: no time limit, or a value that cannot go into a script.
    """
    return scripts.request(run, stage, profile, attempt, 0, None)


def blamed(
    error: RejectedByCluster, found: ProfileFile, run: Run, stage: PlannedStage, script: Path, gateway: Gateway
) -> tuple[str, str]:
    """(what was refused in Slurm's words, with the entry that ends it; the line that it comes from, or nothing)."""
    refusal.add(error, provenance.of_stage(run, stage, found, {}, found.positions), script, gateway)
    said = [line.strip() for line in error.stderr.splitlines() if line.strip()]
    text = error.message + (f" ({said[-1]})" if said else "")
    changes = dict.fromkeys(str(one["change"] or one["remove"]) for one in error.causes)
    text += f"; to end it: {' or '.join(changes)}" if changes else ""
    return text, next((str(one["where"]) for one in error.causes if one["where"]), "")
