"""Write the page of a run or a sweep, and, where it has ended, send the notification; retry what has not arrived."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launch.notify.outbox import Delivery
    from launch.runs.family import Family
    from launch.runs.rundir import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--all", action="store_true", help="all runs and sweeps of the workspace: for crontab")
    parser.add_argument(
        "--again", action="store_true", help="also letters whose sending was cut off: they may arrive twice"
    )


def run(args: argparse.Namespace) -> int:
    """Print what became of each letter; 1 where one has not arrived."""
    from launch.base.errors import InputError
    from launch.notify.tell import tell, tell_family
    from launch.runs.rundir import Run

    told: list[tuple[Run | Family, Delivery]] = []
    for one in _named(args):
        try:
            found = tell(one, args.again) if isinstance(one, Run) else tell_family(one, args.again)
            told += [(one, delivery) for delivery in found]
        except InputError as error:
            if not args.all:
                raise
            print(f"{_name(one)}: {error}")
    lines = [f"{_name(one)}: {_line(delivery)}" for one, delivery in told] or ["nothing to send"]
    value = [{"run": one.id, **asdict(delivery)} for one, delivery in told]
    options.print_result({"letters": value}, lines, args.json)
    return 1 if any(delivery.state != "sent" for _, delivery in told) else 0


def _named(args: argparse.Namespace) -> Sequence[Run | Family]:
    """Which runs and families; of the chains of a family only that."""
    from launch.base.errors import InputError
    from launch.runs import family, rundir

    if args.all:
        if args.run is not None:
            raise InputError("--all: names no run")
        alone = [one for one in rundir.all_runs(args.workspace) if family.of_run(one) is None]
        swept = family.all_families(rundir.known_workspaces(args.workspace))
        return [*alone, *(one for one in swept if one.paths.record.exists())]
    found = families.named(args)
    return [options.open_run(args)[0] if found is None else found]


def _name(one: Run | Family) -> str:
    from launch.runs.family import is_id

    return f"{'family' if is_id(one.id) else 'run'} {one.id}"


def _line(delivery: Delivery) -> str:
    why = f": {delivery.why}" if delivery.why else ""
    return f"letter {delivery.letter} to {delivery.to}: {delivery.state}{why}"
