"""The page of a run, and the letter about its end, written and sent."""

from __future__ import annotations

from jobs.core import redaction
from launch.base.errors import InputError
from launch.notify import letter, outbox
from launch.notify.outbox import Delivery
from launch.report import page
from launch.runs.rundir import Run
from launch.status import ask


def tell(run: Run, again: bool = False) -> list[Delivery]:
    """What became of each letter that had not arrived; ``again``: as of ``outbox.deliver``.

    Raises:
        InputError: the run or the addresses cannot be read.
    """
    plan, profile = run.plan(), run.profile()
    status = ask.look(run, plan, profile)
    made = letter.of_run(run, plan, profile, status)
    page.write(run, plan, profile, status)
    if made is not None and profile.notify.to:
        outbox.post(run, made)
    try:
        values = redaction.read(run.paths.secrets)
    except (OSError, ValueError) as error:
        raise InputError(f"addresses of letters cannot be read: {error}") from error
    return outbox.deliver(run, {name: values[name] for name in profile.notify.to if name in values}, again)
