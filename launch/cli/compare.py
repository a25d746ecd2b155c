"""Hold runs against the first of them: what differs in their files, in what was measured, and in what they cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", metavar="RUN", help="beginning of a run id: the one that others are held against")
    parser.add_argument("others", nargs="+", metavar="RUN", help="the others")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    options.add_workspace(parser)


def run(args: argparse.Namespace) -> int:
    """Print."""
    from launch.base.errors import InputError
    from launch.report import versus
    from launch.status import ask, report

    made: list[report.RunReport] = []
    for name in (args.run, *args.others):
        found, plan, profile = options.open_run(argparse.Namespace(run=name, workspace=args.workspace))
        if any(one.run == found for one in made):
            raise InputError(f"{name}: run {found.id} is named twice")
        made.append(report.make(found, plan, profile, ask.look(found, plan, profile)))
    compared = [versus.make(made[0], one) for one in made[1:]]
    value: dict[str, object] = {"compared": versus.as_json(compared)}
    lines = versus.lines(compared)
    if args.html is not None:
        from jobs.core import files
        from launch.report import versus_page

        files.write_atomic(args.html.absolute(), versus_page.render(compared))
        value["html"] = str(args.html.absolute())
        lines = [f"page: {args.html.absolute()}"]
    options.print_result(value, lines, args.json)
    return 0
