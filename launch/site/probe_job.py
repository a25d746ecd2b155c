"""A job as the profile asks for one, without a pipeline: for ``--test-only`` and for the probe."""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.core.paths import Workspace
from launch import scripts
from launch.executors import carrier
from launch.executors.base import JobRequest
from launch.plan import PlannedStage
from launch.profile import Profile, ProfileFile, Resources
from launch.rundir import Run

NAME = "probe"


def stage_of(
    profile: Profile, kind: str, resources: Resources, executor: str, backend: str, python: str
) -> PlannedStage:
    """A stage that has no inputs and makes nothing."""
    return PlannedStage(
        name=NAME, kind=kind, backend=backend, produces_kind=NAME, produces_format=NAME, fingerprint="0" * 64,
        inputs={}, settings={}, resources=resources, executor=executor, continuation=profile.continuation.value,
        python=python, launcher="python",
    )  # fmt: skip


def request_of(run: Run, stage: PlannedStage, profile: Profile, attempt: str) -> JobRequest:
    """What Slurm would be asked for such a stage in a pipeline.

    Raises:
        InputError: no time limit, or a value that cannot go into a script.
    """
    return scripts.request(run, stage, profile, attempt, 0, None)


def text_of(found: ProfileFile, kind: str, resources: Resources, executor: str, workspace: Path) -> str:
    """The script of a job of a kind, rendered by the executor that carries it.

    Raises:
        InputError: as ``request_of``; or the executor's library is not installed.
    """
    stage = stage_of(found.profile, kind, resources, executor, NAME, sys.executable)
    return carrier(executor).render(request_of(Run(Workspace(workspace), NAME), stage, found.profile, NAME))
