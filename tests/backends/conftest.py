from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.backends import stages

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store entries of the three kinds of data."""
    root = tmp_path_factory.mktemp("data")
    stages.make_data(root)
    return root


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store entry of a tiny model."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("base")
    stages.make_model(root / "output")
    return root
