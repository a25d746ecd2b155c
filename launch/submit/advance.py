"""A run on Slurm brought forward, silently or with what is printed of it: ``submit`` and ``resume`` share it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from launch.base import answers
from launch.base.errors import OvernightError
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.runs import rundir
from launch.runs.rundir import Run
from launch.slurm import refusals
from launch.slurm.client import Gateway
from launch.submit.interrupt import Interrupted
from launch.submit.submitter import Action, Step, Submitter

TRY_AGAIN = 75
"""Exit code at the end of a job: the queue has no room yet, and nobody else will submit what is next."""


def forward(
    run: Run,
    plan: Plan,
    profile: Profile,
    gateway: Gateway,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    on_wait: Callable[[str, str], None] = lambda stage, of_run: None,
    ending: str | None = None,
) -> Submitter:
    """Bring a run on Slurm forward; who did it knows what is left (``not_looked_for``, ``has_to_try_again``).

    Args:
        ending: the job of the run that does this at its end, see ``launch.submit.queue_limit``.

    Raises:
        OvernightError: says what was submitted until then, and how to go on.
        Interrupted: Ctrl-C; everything that happened is recorded.
    """
    steps: list[Step] = []

    def on_every_step(step: Step) -> None:
        steps.append(step)
        on_step(step)

    try:
        with rundir.locked(run):
            submitter = Submitter(run, plan, profile, gateway, on_every_step, on_wait, ending)
            submitter.advance()
    except OvernightError as error:
        jobs = ", ".join(f"{step.stage} ({step.job})" for step in steps if step.job) or "nothing"
        error.message += f"\n  submitted so far: {jobs}"
        # A run keeps its profile: a changed one is another submission.
        if not getattr(error, "causes", None) and not refusals.site_words(getattr(error, "stderr", "")):
            error.hint = _with_resume(error.hint or "", f"overnight resume {run.id}")
        raise
    return submitter


def advance(
    run: Run,
    plan: Plan,
    profile: Profile,
    gateway: Gateway,
    *,
    as_json: bool,
    snapshot_seconds: float | None = None,
    ending: str | None = None,
) -> int:
    """Bring a run on Slurm forward and print what was done; the exit code of the command."""
    steps: list[Step] = []

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
        submitter = forward(run, plan, profile, gateway, on_step=on_step, on_wait=on_wait, ending=ending)
    except Interrupted:
        print(f"\ninterrupted; submitted so far: {len(steps)} of {len(plan.stages)} stages, nothing is lost")
        print(f"go on: overnight resume {run.id}\ncancel: overnight cancel {run.id}")
        return 130
    if submitter.not_looked_for:
        left_over = f"note: jobs that nobody waits for could not be looked for ({submitter.not_looked_for})"
        print(f"{left_over}; later: overnight doctor {run.id}", file=sys.stderr, flush=True)
    if as_json:
        values = [{"stage": step.stage, "action": step.action, "job": step.job} for step in steps]
        print(answers.dumps({"run": run.id, "snapshot_seconds": snapshot_seconds, "stages": values}))
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
