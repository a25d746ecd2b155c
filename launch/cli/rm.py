"""Remove a run, with the results that no other run uses; what others use and downloads stay."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.runs.remove import RunRemoval
    from launch.runs.rundir import Run

SHOWN = 20
"""Lines of the list of what goes."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", metavar="RUN", help="beginning of a run id, or a family")
    options.add_workspace(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed")


def run(args: argparse.Namespace) -> int:
    """Remove; 1 where the answer was no."""
    from launch.base.errors import InputError
    from launch.runs import family as known
    from launch.runs import remove, rundir

    if (family := families.named(args)) is not None:
        workspace, runs, places = family.workspace, family.runs, [family.paths.root]
    else:
        one = rundir.find(args.run, args.workspace)
        if (of := known.of_run(one)) is not None:
            raise InputError(f"run {one.id} is a chain of family {of.id}", hint=f"overnight rm {of.id}")
        workspace, runs, places = one.workspace, [one], []
    with ExitStack() as held:
        for one in runs:
            held.enter_context(rundir.locked(one))
            _refuse_live(one)
        found = remove.of(workspace, [one.id for one in runs], places)
        if args.dry_run:
            return _print(found, args, removed=False)
        if not args.yes and not _agreed(found):
            print("nothing was removed")
            return 1
        found = remove.remove(found)
    return _print(found, args, removed=True)


def _refuse_live(run: Run) -> None:
    """Raises InputError: a stage is in the queue, is running, or cannot be asked about."""
    from launch.base.errors import InputError
    from launch.status import ask

    try:
        plan, profile = run.plan(), run.profile()
    except InputError:  # cut off while it was made: it has no jobs
        return
    status = ask.look(run, plan, profile)
    live = [one.stage for one in status.stages if one.state.is_live]
    if status.unreachable and live:
        raise InputError(f"the cluster does not say whether jobs of run {run.id} are left", hint="try again later")
    if live:
        text = f"run {run.id} is not over: {', '.join(live)}"
        raise InputError(text, hint=f"overnight cancel {run.id}; then: overnight rm {run.id}")


def _agreed(found: RunRemoval) -> bool:
    from launch.base import paint, waiting
    from launch.base.errors import InputError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError("there is nobody to ask", hint="--yes, or --dry-run to see what would be removed")
    paint.out(_lines(found))
    with waiting.paused():
        return input(f"remove these ({found.bytes / 1e6:.1f} MB)? [y/N] ").strip().lower() in ("y", "yes")


def _lines(found: RunRemoval) -> list[str]:
    everything = [*found.directories, *found.unneeded]
    lines = [f"  {one.reason:8} {one.bytes / 1e6:10.1f} MB  {one.path}" for one in everything[:SHOWN]]
    if len(everything) > SHOWN:
        lines.append(f"  and {len(everything) - SHOWN} more")
    if found.unknown:
        lines.append(f"results are kept: no plan can be read of {', '.join(found.unknown)}")
    return lines


def _print(found: RunRemoval, args: argparse.Namespace, removed: bool) -> int:
    everything = [*found.directories, *found.unneeded]
    values = [{"path": str(one.path), "reason": one.reason, "bytes": one.bytes} for one in everything]
    value = {"dry_run": not removed, "bytes": found.bytes, "removed": values, "unknown": list(found.unknown)}
    lines = [] if removed and not args.yes else _lines(found)
    lines.append(f"{'freed' if removed else 'would free'} {found.bytes / 1e6:.1f} MB in {found.workspace.root}")
    options.print_result(value, lines, args.json)
    return 0
