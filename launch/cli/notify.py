"""Write the page of a run, and where it has ended the one letter about it; send what has not arrived yet."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.notify.outbox import Delivery
    from launch.runs.rundir import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--all", action="store_true", help="all runs of the workspace: for crontab")
    parser.add_argument(
        "--again", action="store_true", help="also letters whose sending was cut off: they may arrive twice"
    )


def run(args: argparse.Namespace) -> int:
    """Print what became of each letter; 1 where one has not arrived."""
    from launch.base.errors import InputError
    from launch.notify.tell import tell
    from launch.runs import rundir

    if args.all and args.run is not None:
        raise InputError("--all: names no run")
    found = rundir.all_runs(args.workspace) if args.all else [options.open_run(args)[0]]
    told: list[tuple[Run, Delivery]] = []
    for one in found:
        try:
            told += [(one, delivery) for delivery in tell(one, args.again)]
        except InputError as error:
            if not args.all:
                raise
            print(f"run {one.id}: {error}")
    lines = [f"run {one.id}: {_line(delivery)}" for one, delivery in told] or ["nothing to send"]
    value = [{"run": one.id, **asdict(delivery)} for one, delivery in told]
    options.print_result({"letters": value}, lines, args.json)
    return 1 if any(delivery.state != "sent" for _, delivery in told) else 0


def _line(delivery: Delivery) -> str:
    why = f": {delivery.why}" if delivery.why else ""
    return f"letter {delivery.letter} to {delivery.to}: {delivery.state}{why}"
