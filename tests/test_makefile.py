"""What ``make demo`` does after the installation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent.parent


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("display", ["", ":0"])
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_ends_with_the_page_of_its_run(tmp_path: Path, display: str) -> None:
    """It is opened where there is a display."""
    venv, page = tmp_path / "venv", "/home/me/a run/report.html"
    _program(venv / "bin/overnight", f'[ "$1" = report ] && echo "page: {page}" || echo "$@"')
    _program(tmp_path / "programs/xdg-open", f'printf %s "$1" > "{tmp_path}/opened"')
    for name in (".created", ".torch", ".train", ".dev"):
        (venv / name).touch()
    environment = {**os.environ, "PATH": f"{tmp_path}/programs:{os.environ['PATH']}", "DISPLAY": display}
    environment.pop("WAYLAND_DISPLAY", None)
    command = ["make", "--no-print-directory", "demo", f"VENV={venv}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "/bin/" not in line] == [
        "fetch pipelines/pt_pt.yaml",
        "run pipelines/pt_pt.yaml --cluster local",
    ]
    opened = tmp_path / "opened"
    assert (opened.read_text(encoding="utf-8") if opened.exists() else "") == (page if display else "")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_installs_what_readme_and_tutorial_go_on_to_use(tmp_path: Path) -> None:
    """They submit to a throw-away Slurm and prepare rows, with the environment of the demo."""
    command = ["make", "--dry-run", "--no-print-directory", "demo", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    (extras,) = re.findall(r"--editable '\.\[([\w,-]+)\]'", done.stdout)
    assert {*extras.split(",")} >= {"train", "data", "eval", "nemo-run", "submitit"}
