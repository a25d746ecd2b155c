"""Show how a run stands: what is sealed, what runs and how far it is, why the rest waits, and what to type next."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.config.profile import Profile
    from launch.plan.model import Plan
    from launch.runs.rundir import Run
    from launch.status.model import RunStatus

SILENT = 4
"""Exit code where the cluster did not answer and nothing is known to have failed; as of every such error of ours."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if something failed, 4 if the cluster did not answer, else 0."""
    from launch.runs import rundir
    from launch.status import text

    found = rundir.find(args.run, args.workspace)
    profile, plan = found.profile(), found.plan()
    status = look(found, plan, profile)
    if args.json:
        print(json.dumps(text.as_json(found, plan, profile.name, status)))
    else:
        print("\n".join(text.lines(found, plan, profile.name, status)))
        if status.is_done:
            from launch.status.results import print_results

            print_results(found, plan, as_json=False)
    return exit_code(status)


def exit_code(status: RunStatus, only: str | None = None) -> int:
    """1 if something (of the stage ``only``) failed, 4 if the cluster did not answer, else 0."""
    if any(stage.state.is_bad for stage in status.stages if only in (None, stage.stage)):
        return 1
    return SILENT if status.unreachable else 0


def look(run: Run, plan: Plan, profile: Profile, only: set[str] | None = None) -> RunStatus:
    """Ask the run's cluster once, and judge."""
    from launch.base.errors import InputError
    from launch.status.assess import Queue
    from launch.status.assess import look as judge

    if profile.executor == "local":
        return judge(run, plan, Queue.ask(None), only=only)
    try:
        gateway = options.gateway(profile)
    except InputError as error:  # the throw-away cluster is down
        return judge(run, plan, Queue.silent(error), only=only)
    return judge(run, plan, Queue.ask(gateway), gateway.sacct, only=only)
