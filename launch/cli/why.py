"""Explain why a stage failed or waits: class, the line that shows it, what was saved, the command to continue."""

from __future__ import annotations

import argparse

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("stage", nargs="?", metavar="STAGE", help="name of a stage (default: all that failed or wait)")


def run(args: argparse.Namespace) -> int:
    """Print; exit codes as of ``status``."""
    from launch.status import ask, text, why

    found, plan, profile = options.open_run(args)
    only = None if args.stage is None else plan.find(args.stage).name
    status = ask.look(found, plan, profile)
    told = why.explain(found, plan, profile, status, only)
    lines = [*text.silence(status), ""] if status.silence else []
    shown = told if only else [one for one in told if not one.is_calm]
    causes = [one for one in shown if one.state not in why.CONSEQUENCES]
    behind = [] if only or not causes else [one.stage for one in shown if one not in causes]
    for one in causes if behind else shown:
        lines += why.lines(one)
    if behind:
        lines.append(f"not run because of it: {', '.join(behind)}")
    if not shown:
        sealed = sum(one.state == "sealed" for one in told)
        lines.append(f"run {found.id} needs nothing: {sealed} of {len(told)} stages sealed, the others run or wait")
    options.print_result(why.as_json(found, status, told), lines, args.json)
    return ask.exit_code(status, only)
