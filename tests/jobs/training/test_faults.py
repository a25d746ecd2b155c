"""A full disk and a lack of memory, as the libraries really report them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from jobs.core import symptoms  # noqa: E402
from jobs.core.verdict import FailureClass, classify  # noqa: E402
from jobs.training import faults  # noqa: E402

pytestmark = pytest.mark.train


def raised_by(action: Any) -> BaseException:
    with pytest.raises(Exception) as found, faults.named():  # noqa: PT011
        action()
    return found.value


def test_full_disk_while_torch_saves() -> None:
    # Only torch.save: safetensors would rename its file over the device.
    error = raised_by(lambda: torch.save({"a": torch.zeros(10**6)}, "/dev/full"))
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert classify(error) is FailureClass.STORAGE_FULL


def test_full_disk_while_safetensors_saves() -> None:
    from safetensors import SafetensorError

    def save() -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    assert classify(raised_by(save)) is FailureClass.STORAGE_FULL


def test_no_memory() -> None:
    assert classify(raised_by(lambda: torch.zeros(10**14))) is FailureClass.OUT_OF_MEMORY


def test_memory_of_a_gpu_is_not_that_of_the_machine() -> None:
    def ask() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4096.00 GiB.")

    error = raised_by(ask)
    assert classify(error) is FailureClass.CODE_ERROR  # its words are looked at then
    assert symptoms.recognise(f"{type(error).__name__}: {error}")[0] is FailureClass.GPU_MEMORY


def test_other_errors_stay_what_they_are() -> None:
    assert isinstance(raised_by(lambda: torch.zeros(2) @ torch.zeros(3)), RuntimeError)
