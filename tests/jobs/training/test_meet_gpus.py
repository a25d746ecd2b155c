"""A stage that has asked for GPUs does not compute on the CPU: torch's own reason says why there are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.core import symptoms
from jobs.core.verdict import FailureClass
from jobs.training import interface

torch = pytest.importorskip("torch")

OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading and "
    "installing a new version"
)
BACK_END: Any = SimpleNamespace(PACKAGES=("torch",))


def test_torch_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for error, wanted in (
        (RuntimeError(OLD), FailureClass.VERSIONS),
        (RuntimeError("No CUDA GPUs are available"), FailureClass.MISSING_GPUS),
        (AssertionError("Torch not compiled with CUDA enabled"), FailureClass.VERSIONS),
        (None, FailureClass.MISSING_GPUS),
    ):

        def say(error: Exception | None = error) -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(torch.cuda, "current_device", say)
        with pytest.raises((RuntimeError, AssertionError)) as found:
            interface.meet_gpus(BACK_END, wanted=True)
        assert symptoms.recognise(f"{found.type.__name__}: {found.value}")[0] is wanted


def test_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that asked for none, back ends without torch, and where there are some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    interface.meet_gpus(BACK_END, wanted=False)
    plain: Any = SimpleNamespace()
    interface.meet_gpus(plain, wanted=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    interface.meet_gpus(BACK_END, wanted=True)
