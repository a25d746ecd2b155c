"""The status of a run, from one question to its cluster; and the exit code that stands for it."""

from __future__ import annotations

from launch.base.errors import ClusterUnreachable, InputError
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.runs.client import gateway
from launch.runs.rundir import Run
from launch.status import assess
from launch.status.assess import Queue
from launch.status.model import RunStatus


def look(run: Run, plan: Plan, profile: Profile, only: set[str] | None = None) -> RunStatus:
    """The status of every stage, or of those of ``only``."""
    if profile.executor == "local":
        return assess.look(run, plan, Queue.ask(None), only=only)
    try:
        client = gateway(profile)
    except InputError as error:  # the throw-away cluster is down
        return assess.look(run, plan, Queue.silent(error), only=only)
    return assess.look(run, plan, Queue.ask(client), client.sacct, only=only)


def exit_code(status: RunStatus, only: str | None = None) -> int:
    """1 if something (of the stage ``only``) failed, 4 if the cluster did not respond, else 0."""
    if any(stage.state.is_bad for stage in status.stages if only in (None, stage.stage)):
        return 1
    return ClusterUnreachable.exit_code if status.unreachable else 0
