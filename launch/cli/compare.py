"""Compare runs with the first of them: what differs in their files, in what was measured, and in what they cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", metavar="RUN", help="beginning of a run id: the one that others are compared with")
    parser.add_argument("others", nargs="+", metavar="RUN", help="the others")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="of the page (default: en)")
    options.add_workspace(parser)


def run(args: argparse.Namespace) -> int:
    """Print."""
    from launch.report import versus
    from launch.runs import rundir

    compared = versus.of_runs([rundir.find(name, args.workspace) for name in (args.run, *args.others)])
    value: dict[str, object] = {"compared": versus.as_json(compared)}
    lines = versus.lines(compared)
    if args.html is not None:
        from jobs.core import files
        from launch.report import versus_page

        files.write_atomic(args.html.absolute(), versus_page.render(compared, args.language))
        value["html"] = str(args.html.absolute())
        lines = [f"page: {args.html.absolute()}"]
    options.print_result(value, lines, args.json)
    return 0
