"""Say what became of a run: the finished model or the reason, each stage with what it took, what was measured."""

from __future__ import annotations

import argparse

from launch.cli import options

configure = options.add_run


def run(args: argparse.Namespace) -> int:
    """Print; exit codes as of ``status``."""
    from launch.status import ask, report

    found, plan, profile = options.open_run(args)
    status = ask.look(found, plan, profile)
    made = report.make(found, plan, profile, status)
    options.print_result(report.as_json(made, profile.name), report.lines(made, profile.name), args.json)
    return ask.exit_code(status)
