"""Finished store entries seen from the login node: which can be used again, and which only look finished."""

from __future__ import annotations

import contextlib
import sys
import time

from jobs.core import seal, verdict
from jobs.core.paths import StorePaths
from jobs.core.patience import Patience, passes
from jobs.core.verdict import FailureClass
from launch.base.errors import InputError
from launch.plan.model import Plan
from launch.runs.rundir import Run

LOOK_AGAIN_SECONDS = 5.0
"""How long an entry that does not match is looked at before that is believed."""


def is_sound(store: StorePaths, thorough: bool = False) -> bool:
    """Whether the entry is sealed and matches its seal: sizes always, content too if ``thorough``.

    An entry that does not match is moved aside (kept for the user to look at), so that the stage is made again: not on
    one look, which on NFS may show a size as it was a minute ago, and not where it cannot be read.

    Raises:
        InputError: the file system does not let it be read.
    """
    if not store.seal.exists():
        return False
    waits = Patience(LOOK_AGAIN_SECONDS)

    def look() -> None:
        if seal.of_entry(store) and thorough:
            seal.verify(store.output, store.seal, patience=waits)
        else:
            seal.check_sizes(store.output, store.seal)

    try:
        waits.call(look, lambda error: isinstance(error, seal.SealBroken))
    except seal.SealBroken as error:
        if passes(error):
            raise InputError(
                f"{error}", hint="the file system must be readable; then the same command again"
            ) from error
        with contextlib.suppress(FileNotFoundError):  # another overnight has just done so
            aside = store.root.with_name(f"{store.root.name}.broken-{int(time.time())}")
            store.root.rename(aside)
            print(f"{error}; moved aside: {aside.name}", file=sys.stderr)
        return False
    return True


def suspects(run: Run, plan: Plan) -> set[str]:
    """Stages whose output a child has found broken: their content is read before they are used again."""
    found: set[str] = set()
    for stage in plan.stages:
        verdicts = verdict.all_of(run.paths.stage(stage.name))
        if verdicts and verdicts[-1].failure in (FailureClass.BROKEN_INPUT, FailureClass.MISSING_INPUT):
            found |= set(stage.parents)
    return found
