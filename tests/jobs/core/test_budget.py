"""Retries are bounded by class; a time limit with progress is free; no progress ends the chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core import verdict
from jobs.core.budget import FREE_WITH_PROGRESS, RETRIES, Ended, may_go_on
from jobs.core.verdict import FailureClass
from jobs.lifecycle.nodes import expand

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


def test_a_missing_file_is_a_missing_input_only_inside_an_input(tmp_path: Path) -> None:
    store = tmp_path / "checkpoint-1"
    inside = FileNotFoundError(2, "No such file", str(store / "output" / "model.json"))
    outside = FileNotFoundError(2, "No such file", str(tmp_path / "checkpoint-10" / "x"))
    assert verdict.classify(inside, [store]) is FailureClass.MISSING_INPUT
    assert verdict.classify(outside, [store]) is FailureClass.CODE_ERROR
    assert verdict.classify(inside) is FailureClass.CODE_ERROR
    assert verdict.classify(OSError(28, "No space left on device")) is FailureClass.STORAGE_FULL


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[1-3,07-09],login1", ["node1", "node2", "node3", "node07", "node08", "node09", "login1"]),
        ("a[1,3]b", ["a1b", "a3b"]),
        ("", []),
        ("$(x)", []),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names
