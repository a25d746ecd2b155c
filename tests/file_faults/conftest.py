"""A directory that stands for a disk, without a Slurm to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core import files, patience


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm is asked
    monkeypatch.setattr(files, "CREATION_SECONDS", 0.01)
    monkeypatch.setattr(files, "ABANDONED_SECONDS", 0.02)
    monkeypatch.setattr(patience, "TOTAL_SECONDS", 0.5)
    root = tmp_path / "disk"
    root.mkdir()
    return root
