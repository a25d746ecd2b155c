"""The status of a run, from one question to its cluster; and the exit code that stands for it."""

from __future__ import annotations

from launch.base.errors import ClusterUnreachable
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.runs.rundir import Run
from launch.status import assess, cluster
from launch.status.model import RunStatus


def look(run: Run, plan: Plan, profile: Profile, only: set[str] | None = None) -> RunStatus:
    """The status of every stage, or of those of ``only``."""
    return assess.look(run, plan, *cluster.ask(profile), only)


def exit_code(status: RunStatus, only: str | None = None) -> int:
    """1 if something (of the stage ``only``) failed, 4 if the cluster did not respond and not all is sealed, else 0."""
    if any(stage.state.is_bad for stage in status.stages if only in (None, stage.stage)):
        return 1
    return ClusterUnreachable.exit_code if status.unreachable and not status.is_done else 0
