"""Run a pipeline on this machine, one stage after the other, without Slurm."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.runs.family import Family
    from launch.runs.rundir import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser, cluster="local")


def run(args: argparse.Namespace) -> int:
    """Make a run and run every stage that is not sealed."""
    from launch.submit import prepare, start

    wanted = options.wanted(args)
    if not options.is_swept(args):
        return advance(start.here(wanted, options.note), as_json=args.json)
    from launch.plan.sweep import Sweep

    found = Sweep.read(args.pipeline, args.set)
    variants = families.plan(args, found)
    start.refuse_slurm(variants[0].planned, wanted)
    return family_here(families.make(found, variants, prepare.secrets(variants[0].planned)), as_json=args.json)


def advance(run: Run, *, as_json: bool) -> int:
    """Run the stages of a run here until it has ended, and print its table; ``run`` and ``resume`` share it."""
    from launch.cli.progress import LocalDisplay, shown
    from launch.runs import rundir
    from launch.status import results
    from launch.submit.local import LocalRunner, Stopped

    plan = run.plan()
    if not as_json:
        print(f"run {run.id} in {run.paths.root}", flush=True)
    try:
        with rundir.locked(run), shown(quiet=as_json) as output:
            LocalRunner(run, plan, run.profile(), LocalDisplay(plan, output)).advance()
    except KeyboardInterrupt:
        text = f"interrupted; what run {run.id} has sealed and saved stays"
        raise Stopped(text, hint=f"overnight resume {run.id}") from None
    finally:
        # Also of a night that failed, above all where a gate was missed: what was measured so far.
        results.print_results(run, plan, as_json=as_json)
        _tell(run, as_json)
    return 0


def family_here(family: Family, *, as_json: bool) -> int:
    """Run the chains of a sweep here, one after the other, and print how they stand; one that fails is one that
    failed."""
    from launch.base.errors import OvernightError
    from launch.runs import family as known
    from launch.runs.journal import Event
    from launch.status.runs import overview

    failed: dict[str, str] = {}
    with known.locked(family):
        family.journal.write(Event.DEFERRED, runs=[], by=None)
        for run in family.runs:
            open_stages = [one for one in run.plan().stages if not one.store(family.workspace).seal.exists()]
            shared = next((one for one in open_stages if one.fingerprint in failed), None)
            if shared is not None:
                print(f"run {run.id}: not tried, its stage {shared.name} failed in run {failed[shared.fingerprint]}")
                continue
            try:
                with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
                    advance(run, as_json=as_json)
            except OvernightError as error:
                print(f"run {run.id}: {error}", file=sys.stderr, flush=True)
                if overview(run).state == "stopped":
                    print(f"next: overnight resume {family.id}", file=sys.stderr)
                    return 1
                first = next(one for one in open_stages if not one.store(family.workspace).seal.exists())
                failed[first.fingerprint] = run.id
    _tell(family, as_json=True)  # whose report follows
    return families.show_report(family, as_json=as_json)


def _tell(what: Run | Family, as_json: bool) -> None:
    """The page for the morning, and the letter; that they cannot be written or sent fails nothing."""
    from launch.base.errors import OvernightError
    from launch.notify.tell import tell, tell_family
    from launch.runs.family import Family

    try:
        told = tell_family(what) if isinstance(what, Family) else tell(what)
    except (OSError, OvernightError) as error:
        print(f"note: the page of {what.id} could not be written: {error}", file=sys.stderr)
        return
    for one in told:
        if one.state != "sent":
            print(f"note: the letter to {one.to} was not sent: {one.why}", file=sys.stderr)
    if not as_json:
        print(f"page: {what.paths.page}")
