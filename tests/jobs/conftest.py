from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import environments, stages

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


@pytest.fixture(scope="session")
def nemo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of the NeMo environment, on the CPU."""
    venv = environments.installed("nemo", "nemo")
    return environments.on_cpu(venv, tmp_path_factory.mktemp("nemo") / "venv") / "bin/python"


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory, base: Path, nemo: Path) -> Path:
    """Store entry of the tiny model as a NeMo checkpoint."""
    made = stages.stage(tmp_path_factory.mktemp("imported"), "convert", "nemo", {}, {"source": base}, {"source": "hf"})
    environments.start(nemo, made)
    return environments.publish(made)
