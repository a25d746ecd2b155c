"""How often a stage may be started again, by the class of what ended it: nothing loops for ever.

A retry is a start of the same attempt (one submission); ``overnight resume`` begins a new attempt with full budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.core.verdict import FailureClass

RETRIES: dict[FailureClass, int] = {
    FailureClass.TIME_LIMIT: 0,
    FailureClass.PREEMPTED: 5,
    FailureClass.NODE_FAILURE: 5,
    FailureClass.FILE_SYSTEM: 5,
    FailureClass.KILLED: 3,
    FailureClass.HANG: 2,
    FailureClass.COLLECTIVE_TIMEOUT: 3,
    FailureClass.MISSING_GPUS: 2,
    FailureClass.INCOMPLETE_CHECKPOINT: 1,
    FailureClass.ENVIRONMENT: 1,
    FailureClass.IMAGE: 1,
    FailureClass.NAMES: 1,
    FailureClass.OUT_OF_MEMORY: 0,
    FailureClass.GPU_MEMORY: 0,
    FailureClass.STORAGE_FULL: 0,
    FailureClass.CODE_ERROR: 0,
}
"""Retries by default, and the classes whose number a profile may set. All others are never tried again: the same input
gives the same result. Memory is not tried again either unless a profile says so: it would run out again."""

FREE_WITH_PROGRESS = frozenset({FailureClass.TIME_LIMIT, FailureClass.PREEMPTED})
"""Cost nothing where the start has saved something new; only those in a row that did not are counted."""


@dataclass(frozen=True)
class Ended:
    """How one start ended. ``progressed``: a newer save lies there than when it began."""

    failure: FailureClass
    progressed: bool


def allowed(failure: FailureClass, retries: Mapping[str, int]) -> int:
    """Retries of a class; ``retries`` is what the profile says, by the class's value."""
    return retries.get(failure.value, RETRIES.get(failure, 0))


def spent(history: Sequence[Ended], failure: FailureClass) -> int:
    """Starts charged to a class so far; ``history`` is in the order of time."""
    if failure not in FREE_WITH_PROGRESS:
        return sum(ended.failure is failure for ended in history)
    count = 0
    for ended in reversed(history):
        if ended.progressed:
            break
        count += ended.failure is failure
    return count


def may_go_on(history: Sequence[Ended], retries: Mapping[str, int]) -> bool:
    """Whether another start may follow the last of ``history``."""
    if not history:
        return True
    failure = history[-1].failure
    return spent(history, failure) <= allowed(failure, retries)


def state(history: Sequence[Ended], retries: Mapping[str, int]) -> str:
    """The budget of the class that ended the last start, in words: ``2 of 5 retries used``."""
    failure = history[-1].failure
    used, most = spent(history, failure), allowed(failure, retries)
    if failure in FREE_WITH_PROGRESS:
        return f"{used} in a row without a new save, {most} allowed"
    return f"{used} so far, {most} {'retry' if most == 1 else 'retries'} allowed"
