from __future__ import annotations

import threading
from typing import Any

import pytest

from jobs.core import hashing


@pytest.fixture
def sealing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What the digests of seals wait for."""
    going, real = threading.Event(), hashing.digest_files

    def slow(*given: Any, **named: Any) -> Any:
        assert going.wait(30)
        return real(*given, **named)

    monkeypatch.setattr(hashing, "digest_files", slow)
    return going
