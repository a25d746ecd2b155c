"""Cancel a run, or one stage of it with every stage that depends on it; what is sealed stays."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.runs.family import Family
    from launch.runs.rundir import Run
    from launch.submit.cancel import Cancelled


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="beginning of a run id (default: the newest run)")
    parser.add_argument("stage", nargs="?", metavar="STAGE", help="this stage and all below it (default: all stages)")
    parser.add_argument("--adopted", action="store_true", help="also jobs that another run submitted")
    options.add_workspace(parser)


def run(args: argparse.Namespace) -> int:
    """Cancel; 1 if a job is still in the queue after half a minute. Doing it twice is fine."""
    from launch.runs import client, rundir
    from launch.submit import cancel

    if (family := families.named(args)) is not None:
        return _family(family, args)
    found, plan, profile = options.open_run(args)
    stages = {stage.name for stage in plan.stages}
    if args.stage is not None:
        stages = plan.below({plan.find(args.stage).name})
    if profile.executor == "local":
        asked = cancel.here(found, plan, stages)
        lines = [f"{', '.join(asked)}: asked to save and leave at the next step", f"next: overnight status {found.id}"]
        idle = [f"nothing of run {found.id} runs here"]
        options.print_result({"run": found.id, "stopping": asked}, lines if asked else idle, args.json)
        return 0
    # Not while a submission is at work: what it adds next would escape.
    with rundir.locked(found):
        done = cancel.on_slurm(found, plan, client.gateway(profile), stages, args.adopted)
    _print(found, done, args.json)
    return 1 if done.left else 0


def _family(family: Family, args: argparse.Namespace) -> int:
    """Cancel every chain of a sweep, and let none that waits for room follow."""
    from launch.base.errors import InputError
    from launch.runs import client, rundir
    from launch.runs import family as families
    from launch.runs.journal import Event
    from launch.submit import cancel

    if args.stage is not None:
        raise InputError("a family is cancelled as a whole", hint="overnight cancel RUN STAGE, of one chain")
    profile = family.runs[0].profile()
    if profile.executor == "local":
        stopping = {
            run.id: cancel.here(run, run.plan(), {one.name for one in run.plan().stages}) for run in family.runs
        }
        family.journal.write(Event.CANCELLED, runs=list(stopping))
        asked = [f"  {run}: {', '.join(stages)} asked to save and leave" for run, stages in stopping.items() if stages]
        value = {"family": family.id, "stopping": stopping}
        options.print_result(value, asked or [f"nothing of family {family.id} runs here"], args.json)
        return 0
    # Written first: the end of a job that is cancelled must not submit the next chain. And again when the lock is
    # held, after whatever was being submitted.
    family.journal.write(Event.CANCELLED, runs=[run.id for run in family.runs])
    with families.locked(family):
        family.journal.write(Event.CANCELLED, runs=[run.id for run in family.runs])
        gateway = client.gateway(profile)
        done = {}
        for run in family.runs:
            plan = run.plan()
            with rundir.locked(run):
                done[run.id] = cancel.on_slurm(run, plan, gateway, {one.name for one in plan.stages}, args.adopted)
    left = [job for one in done.values() for job in one.left]
    value = {"family": family.id, "runs": {run: {"jobs": one.jobs, "left": one.left} for run, one in done.items()}}
    lines = [f"  {run}: {len(one.jobs)} jobs cancelled" for run, one in done.items() if one.jobs]
    lines = lines or [f"family {family.id} has no jobs in the queue"]
    again = f"overnight cancel {family.id}" if left else f"overnight resume {family.id}, to go on from what is sealed"
    options.print_result(value, [*lines, f"next: {again}"], args.json)
    return 1 if left else 0


def _print(run: Run, done: Cancelled, as_json: bool) -> None:
    value = {"run": run.id, "stages": done.stages, "jobs": done.jobs, "left": done.left}
    value |= {"spared": done.spared, "theirs": done.theirs}
    lines = [f"run {run.id}:" if done.jobs else f"run {run.id} has no jobs in the queue"]
    for job, stage in done.jobs.items():
        lines.append(f"  {stage:16} {job:10} {'still in the queue' if job in done.left else 'cancelled'}")
    for stage, other in done.spared.items():
        lines.append(f"  {stage:16} left alone: it is a job of run {other} (--adopted cancels it, too)")
    for stage, user in done.theirs.items():
        lines.append(f"  {stage:16} left alone: it is a job of user {user}, who alone can cancel it")
    resume = f"overnight resume {run.id}, to go on from what is sealed and saved"
    lines.append(f"next: {f'overnight cancel {run.id}' if done.left else resume}")
    options.print_result(value, lines, as_json)
