"""Follow a run: stages, steps, losses, the log, the predicted end; asks the queue once in 15 s for all who watch."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from types import ModuleType

    from launch.config.profile import Profile
    from launch.plan.estimates import Estimate
    from launch.plan.model import Plan
    from launch.runs.rundir import Run
    from launch.watch.screen import Screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--plain", action="store_true", help="a line for each change, without a screen of its own")


def run(args: argparse.Namespace) -> int:
    """Watch until the run is over (plain) or the user leaves; 1 where a stage has failed."""
    from launch.watch import screen as screens
    from launch.watch.feed import Feed

    found, plan, profile = options.open_run(args)
    feed, known = Feed(found, plan, profile), screens.ReportCache()
    estimates = _estimates(found, plan, profile)

    def look() -> Screen:
        now = time.time()
        return screens.make(found, plan, feed.look(now), known, estimates, now)

    if args.json:
        from dataclasses import asdict

        options.print_result(asdict(look()), [], as_json=True)
        return 0
    app = None if args.plain or not _has_screen() else _app()
    if app is None:
        from launch.watch import plain

        last = plain.follow(look, 2.0)
        return 1 if any(row.state.is_bad for row in last.rows) else 0
    blocks = screens.BLOCKS if (sys.stdout.encoding or "").lower().startswith("utf") else screens.PLAIN_BLOCKS
    return int(app.Watcher(found, look, blocks).run(mouse=False) or 0)


def _has_screen() -> bool:
    return sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _app() -> ModuleType | None:
    """The module with the screen; None: textual is not installed."""
    try:
        from launch.watch import app
    except ImportError:
        print("textual is not installed (pip install 'overnight[watch]'): as with --plain", file=sys.stderr)
        return None
    return app


def _estimates(run: Run, plan: Plan, profile: Profile) -> dict[str, Estimate]:
    """Stage -> how long it is predicted to take; none where models are not at hand."""
    from launch.base.errors import OvernightError
    from launch.plan.estimates import estimates

    try:
        return {one.stage: one for one in estimates(plan, profile, run.workspace)}
    except OvernightError:
        return {}
