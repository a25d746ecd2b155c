"""Run a pipeline on this machine, one stage after the other, without Slurm."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.runs.rundir import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser, cluster="local")


def run(args: argparse.Namespace) -> int:
    """Make a run and run every stage that is not sealed."""
    from launch.submit import start

    return advance(start.here(options.wanted(args)), as_json=args.json)


def advance(run: Run, *, as_json: bool) -> int:
    """Run the stages of a run here until it has ended, and print its table; ``run`` and ``resume`` share it."""
    from launch.cli.progress import LocalDisplay, shown
    from launch.runs import rundir
    from launch.status import results
    from launch.submit.local import LocalRunner

    plan = run.plan()
    if not as_json:
        print(f"run {run.id} in {run.paths.root}", flush=True)
    try:
        with rundir.locked(run), shown(quiet=as_json) as output:
            LocalRunner(run, plan, run.profile(), LocalDisplay(plan, output)).advance()
    finally:
        # Also of a night that failed, above all where a gate was missed: what was measured so far.
        results.print_results(run, plan, as_json=as_json)
        _tell(run, as_json)
    return 0


def _tell(run: Run, as_json: bool) -> None:
    """The page for the morning, and the letter; that they cannot be written or sent fails nothing."""
    import sys

    from launch.base.errors import OvernightError
    from launch.notify.tell import tell

    try:
        told = tell(run)
    except (OSError, OvernightError) as error:
        print(f"note: the page of the run could not be written: {error}", file=sys.stderr)
        return
    for one in told:
        if one.state != "sent":
            print(f"note: the letter to {one.to} was not sent: {one.why}", file=sys.stderr)
    if not as_json:
        print(f"page: {run.paths.page}")
