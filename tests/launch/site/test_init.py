"""``overnight profile init`` where there is no Slurm; on a real one: ``tests/slurm/test_profile_commands.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.cli import main


def test_no_slurm_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OVERNIGHT_DEVCLUSTER", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main.main(["profile", "init", "here"]) == 2
    said = capsys.readouterr().err
    assert "scontrol show config: there is no scontrol on this machine" in said
    assert not list(tmp_path.rglob("*.yaml"))
