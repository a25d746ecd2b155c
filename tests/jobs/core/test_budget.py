"""Retries are bounded by class; a time limit with progress is free; no progress ends the chain."""

from __future__ import annotations

import pytest

from jobs.core.budget import FREE_WITH_PROGRESS, RETRIES, Ended, may_go_on
from jobs.core.verdict import FailureClass

pytestmark = pytest.mark.failure(8)


@pytest.mark.parametrize("failure", sorted(set(FailureClass) - FREE_WITH_PROGRESS))
@pytest.mark.parametrize("progressed", [True, False])
def test_every_class_comes_to_an_end(failure: FailureClass, progressed: bool) -> None:
    allowed = RETRIES.get(failure, 0)
    assert may_go_on([Ended(failure, progressed)] * allowed, {})
    assert not may_go_on([Ended(failure, progressed)] * (allowed + 1), {})
    assert may_go_on([Ended(failure, progressed)] * (allowed + 1), {failure.value: allowed + 1})


def test_memory_and_code_are_never_tried_again_by_default() -> None:
    for failure in (FailureClass.OUT_OF_MEMORY, FailureClass.GPU_MEMORY, FailureClass.CODE_ERROR, FailureClass.GATE):
        assert not may_go_on([Ended(failure, True)], {})


def test_a_time_limit_is_free_with_progress_and_ends_without() -> None:
    limit = Ended(FailureClass.TIME_LIMIT, True)
    assert may_go_on([limit] * 1000, {})
    assert not may_go_on([limit, Ended(FailureClass.TIME_LIMIT, False)], {})
    preempted = Ended(FailureClass.PREEMPTED, False)
    assert may_go_on([preempted] * 5, {})
    assert not may_go_on([preempted] * 6, {})
    assert may_go_on([*[preempted] * 5, limit, *[preempted] * 5], {}), "a new save begins the count again"
