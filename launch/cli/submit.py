"""Submit a pipeline as a chain of Slurm jobs and return; nothing of ours stays alive."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.runs.rundir import Run
    from launch.slurm.client import Gateway
    from launch.submit.submitter import Step


TRY_AGAIN = 75
"""As a job's end is told that there is no room in the queue yet, and that nobody else will submit what is next."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)


def run(args: argparse.Namespace) -> int:
    """Make a run and submit every stage that is not sealed or queued already."""
    from launch.base.errors import InputError
    from launch.plan import estimates, limits
    from launch.render import dry_run, provenance
    from launch.runs import client, rundir, secret_files

    planned = options.plan(args)
    profile = planned.profile.profile
    if profile.executor == "local":
        raise InputError(
            f"the profile {profile.name!r} has no Slurm", hint=f"overnight run {args.pipeline} --cluster {args.cluster}"
        )
    options.refuse_missing(planned, args)
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    estimates.refuse(planned.plan, profile, planned.workspace)
    for note in dry_run.refuse(planned.plan, profile, planned.workspace, planned.pipeline):
        print(f"note: {note}", file=sys.stderr, flush=True)
    values = options.secrets(planned)
    gateway = client.gateway(profile, values)
    began = time.monotonic()
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    provenance.save(run, planned.plan, planned.profile, planned.pipeline)
    secret_files.write(run.paths, values)
    snapshot_seconds = time.monotonic() - began
    return advance(run, gateway, as_json=args.json, snapshot_seconds=snapshot_seconds)


def advance(
    run: Run, gateway: Gateway, *, as_json: bool, snapshot_seconds: float | None = None, ending: str | None = None
) -> int:
    """Bring a run on Slurm forward and print what was done; ``submit`` and ``resume`` share it. ``ending``: the job of
    the run that does this at its end, see ``launch.submit.queue_limit``."""
    from launch.base.errors import OvernightError
    from launch.runs import rundir
    from launch.slurm import refusals
    from launch.submit.interrupt import Interrupted
    from launch.submit.submitter import Action, Submitter

    steps: list[Step] = []
    profile = run.profile()

    def on_step(step: Step) -> None:
        steps.append(step)
        if not as_json:
            of_run = f" (queued by run {step.of_run})" if step.of_run not in ("", run.id) else ""
            print(f"  {step.stage:16} {step.action:10} {step.job or ''}{of_run}", flush=True)

    def on_wait(stage: str, of_run: str) -> None:
        print(f"  {stage:16} waits: its submission by run {of_run} may be on the way", file=sys.stderr, flush=True)

    if not as_json:
        print(f"run {run.id} in {run.paths.root}", flush=True)
    try:
        with rundir.locked(run):
            submitter = Submitter(run, run.plan(), profile, gateway, on_step, on_wait, ending)
            submitter.advance()
    except Interrupted:
        print(f"\ninterrupted; submitted so far: {len(steps)} of {len(run.plan().stages)} stages, nothing is lost")
        print(f"go on: overnight resume {run.id}\ncancel: overnight cancel {run.id}")
        return 130
    except OvernightError as error:
        jobs = ", ".join(f"{step.stage} ({step.job})" for step in steps if step.job) or "nothing"
        error.message += f"\n  submitted so far: {jobs}"
        # A run keeps its profile: a changed one is another submission.
        if not getattr(error, "causes", None) and not refusals.site_words(getattr(error, "stderr", "")):
            error.hint = _with_resume(error.hint or "", f"overnight resume {run.id}")
        raise
    if submitter.not_looked_for:
        left_over = f"note: jobs that nobody waits for could not be looked for ({submitter.not_looked_for})"
        print(f"{left_over}; later: overnight doctor {run.id}", file=sys.stderr, flush=True)
    if as_json:
        values = [{"stage": step.stage, "action": step.action, "job": step.job} for step in steps]
        print(json.dumps({"run": run.id, "snapshot_seconds": snapshot_seconds, "stages": values}))
    else:
        later = sum(step.action is Action.LATER for step in steps)
        if later and ending is None:
            print(f"{later} stages follow as jobs end (submission: {profile.submission}); where none does: resume")
        print(f"follow it: overnight status {run.id}")
    return TRY_AGAIN if submitter.has_to_try_again else 0


def _with_resume(hint: str, resume: str) -> str:
    """``hint`` with the whole command that goes on, where it names it already or at its end."""
    if "overnight resume" in hint:
        return hint.replace("overnight resume", resume)
    return f"{hint}; then: {resume}" if hint else resume
