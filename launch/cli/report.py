"""Say what became of a run: the finished model or the reason, each stage with what it took, what was measured."""

from __future__ import annotations

import argparse
import json

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Print; exit codes as of ``status``."""
    from launch.cli.status import exit_code, look
    from launch.runs import rundir
    from launch.status import report

    found = rundir.find(args.run, args.workspace)
    profile, plan = found.profile(), found.plan()
    status = look(found, plan, profile)
    made = report.make(found, plan, profile, status)
    if args.json:
        print(json.dumps(report.as_json(made, profile.name)))
    else:
        print("\n".join(report.lines(made, profile.name)))
    return exit_code(status)
