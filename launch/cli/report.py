"""Show the outcome of a run: the finished model or the reason for none, the time of each stage, what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.config.profile import Profile
    from launch.status.report import RunReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument(
        "--html", nargs="?", const="", metavar="FILE", help="write a page (default: report.html in the run's directory)"
    )
    parser.add_argument("--md", action="store_true", help="print Markdown")
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="of the page (default: en)")


def run(args: argparse.Namespace) -> int:
    """Print; exit codes as of ``status``."""
    from launch.status import ask, report

    if (family := families.named(args)) is not None:
        return families.show_report(family, as_json=args.json, markdown=args.md, html=args.html, language=args.language)
    found, plan, profile = options.open_run(args)
    status = ask.look(found, plan, profile)
    made = report.make(found, plan, profile, status)
    value, lines = report.as_json(made, profile.name), report.lines(made, profile.name)
    if args.json:
        value["night"] = _night(made, profile)
    if args.html is not None:
        from launch.report import page

        chosen = Path(args.html).absolute() if args.html else None
        where = page.write(found, plan, profile, status, chosen, args.language)
        value, lines = {**value, "html": str(where)}, [f"page: {where}"]
    elif args.md:
        from launch.report import markdown

        lines = markdown.lines(made, profile.name)
    options.print_result(value, lines, args.json)
    return ask.exit_code(status)


def _night(made: RunReport, profile: Profile) -> dict[str, Any] | None:
    """What the stages did when; None: nothing is known of it."""
    import time

    from launch.report import night, parts

    found = night.of_run(made.run, made.plan, time.time())
    return None if found is None else parts.night_as_json(made, profile, found)
