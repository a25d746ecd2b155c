"""List the runs of the workspaces that this user has submitted to, newest first; no Slurm command is started."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from launch.cli import options

configure = options.add_workspace


def run(args: argparse.Namespace) -> int:
    """Print one line a run."""
    from launch.base.text import clock, table
    from launch.runs import rundir
    from launch.status.runs import overview

    found = [overview(one) for one in rundir.all_runs(args.workspace)]
    rows = [
        [
            one.run,
            one.family,
            one.pipeline,
            one.profile,
            "" if one.created_at is None else clock(one.created_at),
            f"{one.sealed}/{one.total}",
            one.state,
        ]
        for one in found
    ]
    shown = table(("run", "family", "pipeline", "profile", "created", "sealed", "state"), rows, right=(5,))
    none = ["no runs yet", "next: overnight submit PIPELINE --cluster NAME"]
    options.print_result([asdict(one) for one in found], shown if found else none, args.json)
    return 0
