"""Say why a stage failed or waits: class, the line that shows it, what was saved, and the command to go on."""

from __future__ import annotations

import argparse
import json

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("stage", nargs="?", metavar="STAGE", help="name of a stage (default: all that need a word)")


def run(args: argparse.Namespace) -> int:
    """Print; exit codes as of ``status``."""
    from launch.cli.status import exit_code, look
    from launch.runs import rundir
    from launch.status import why

    found = rundir.find(args.run, args.workspace)
    profile, plan = found.profile(), found.plan()
    only = None if args.stage is None else plan.find(args.stage).name
    status = look(found, plan, profile)
    told = why.explain(found, plan, profile, status, only)
    if args.json:
        print(json.dumps(why.as_json(found, status, told)))
    else:
        if status.unreachable:
            print(
                f"The cluster does not answer: {status.unreachable}\nWhat follows is what the files of the run prove.\n"
            )
        shown = told if only else [one for one in told if not one.is_calm]
        for one in shown:
            print("\n".join(why.lines(one)))
        if not shown:
            sealed = sum(one.state == "sealed" for one in told)
            print(f"run {found.id} needs nothing: {sealed} of {len(told)} stages sealed, the others run or wait")
    return exit_code(status, only)
