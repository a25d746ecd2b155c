"""Which class of failure an error is."""

from __future__ import annotations

import errno
import os
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


def test_a_connection_between_processes_is_no_file_system(tmp_path: Path) -> None:
    """A server that is away and a peer that is away say the same: a name of a file tells them apart."""
    for code in (errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTUNREACH):
        assert verdict.classify(OSError(code, os.strerror(code), str(tmp_path))) is FailureClass.FILE_SYSTEM
        assert verdict.classify(OSError(code, os.strerror(code))) is FailureClass.CODE_ERROR
    assert verdict.classify(OSError(errno.EIO, "Input/output error")) is FailureClass.FILE_SYSTEM
