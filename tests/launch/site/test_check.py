"""``overnight profile check`` without Slurm; on a real one: ``tests/slurm/test_check.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.cli import main
from launch.config.profile_file import read_profile
from launch.site import check
from launch.site.finding import Level


def test_check_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nexecutor: local\nworkspace: {tmp_path}/work\n")
    assert main.main(["profile", "check", str(file)]) == 0
    file.write_text(
        f"name: mine\nexecutor: local\nworkspace: {tmp_path}/work\nenvironments:\n  trl: {{venv: {tmp_path}/no}}\n  nemo: {{image: ./no.sif}}\n"
    )
    capsys.readouterr()
    assert main.main(["profile", "check", str(file), "--json"]) == 1
    findings = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert (findings["python of trl"]["level"], findings["python of trl"]["where"]) == ("fail", f"{file}:5:8")
    assert findings["image of nemo"]["level"] == "fail"
    assert findings["workspace"]["level"] == "ok"


def test_check_looks_at_the_sources_of_mounts(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file = tmp_path / "mine.yaml"
    mounts = f'["{tmp_path}/there:/data:ro", {tmp_path}/no]'
    file.write_text(f"executor: local\nworkspace: {tmp_path}\ncontainers:\n  mounts: {mounts}\n")
    there, missing = (one for one in check.check(read_profile(file), None) if one.what == "mount")
    assert (there.level, there.text) == (Level.OK, f"{tmp_path}/there is there")
    assert missing.level is Level.WARN
    assert missing.text == f"{tmp_path}/no is not on this login node; without it no container starts"
    line, column = map(int, missing.where.split(":")[-2:])
    assert file.read_text().splitlines()[line - 1][column - 1 :].startswith(f"{tmp_path}/no")
