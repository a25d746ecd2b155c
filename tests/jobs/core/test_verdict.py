"""Which class of failure an error is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core import verdict
from jobs.core.verdict import FailureClass


@pytest.mark.failure(8)
def test_a_missing_file_is_a_missing_input_only_inside_an_input(tmp_path: Path) -> None:
    store = tmp_path / "checkpoint-1"
    inside = FileNotFoundError(2, "No such file", str(store / "output" / "model.json"))
    outside = FileNotFoundError(2, "No such file", str(tmp_path / "checkpoint-10" / "x"))
    assert verdict.classify(inside, [store]) is FailureClass.MISSING_INPUT
    assert verdict.classify(outside, [store]) is FailureClass.CODE_ERROR
    assert verdict.classify(inside) is FailureClass.CODE_ERROR
    assert verdict.classify(OSError(28, "No space left on device")) is FailureClass.STORAGE_FULL
