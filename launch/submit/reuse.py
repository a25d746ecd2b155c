"""Finished store entries seen from the login node: which can be used again, and which only look finished."""

from __future__ import annotations

import contextlib
import time

from jobs.core import seal, verdict
from jobs.core.paths import StorePaths
from jobs.core.verdict import FailureClass
from launch.plan.model import Plan
from launch.runs.rundir import Run


def is_sound(store: StorePaths, thorough: bool = False) -> bool:
    """Whether the entry is sealed and matches its seal: sizes always, content too if ``thorough``.

    An entry that does not match is moved aside (kept for the user to look at), so that the stage is made again.
    """
    if not store.seal.exists():
        return False
    try:
        if thorough:
            seal.verify(store.output, store.seal)
        else:
            seal.check_sizes(store.output, store.seal)
    except seal.SealBroken:
        with contextlib.suppress(FileNotFoundError):  # another overnight has just done so
            store.root.rename(store.root.with_name(f"{store.root.name}.broken-{int(time.time())}"))
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
