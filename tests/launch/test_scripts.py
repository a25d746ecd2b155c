"""The two scripts of a stage: shellcheck has nothing to say, and hostile values stay values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch import render
from launch.errors import InputError

NASTY = "/x/it's $(touch /tmp/never) `id` \"q\"; rm -rf é"
SPEC: dict[str, Any] = {
    "stage": "cpt", "stage_dir": "/w/runs/abcde/stages/cpt", "boot": "/w/boot.py", "spec": "/w/spec.json",
    "environment": [("NAME", NASTY)], "secrets": None,
}  # fmt: skip
HOST = {"core_python": "/venv/bin/python", "watch_seconds": 30, "seal": "/w/store/x/seal.json"}
ENTER = {"modules": ["cuda/12", NASTY], "enter": ["apptainer", "exec", NASTY], "variables": ["HF_TOKEN"], "prefix": "X_", "node": "/w/node.sh"}
NODE = {"stage_python": "/venv/bin/python", "nodes": 2, "processes": 4, "ray_seconds": 600, **ENTER}


def texts() -> dict[str, str]:
    host = {"host.sh": "#!/bin/bash\n" + render.template("host.sh.j2", **SPEC, **HOST)}
    launchers = ("python", "torchrun", "ray")
    return host | {f"node-{one}.sh": render.template("node.sh.j2", **SPEC, **NODE, launcher=one) for one in launchers}


@pytest.mark.parametrize("name", texts())
def test_shellcheck(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(texts()[name])
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-S", "warning", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.failure(26)
def test_a_value_is_never_run(tmp_path: Path) -> None:
    plain = {"modules": (), "enter": ()}
    text = render.template("node.sh.j2", **{**SPEC, "stage_dir": tmp_path}, **{**NODE, **plain}, launcher="python")
    shown = text.replace("exec ", "printf '%s' \"$NAME\"; : ")
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == NASTY


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\x00b", "a\x1b[31m"])
@pytest.mark.failure(16)
def test_control_characters_are_refused(bad: str) -> None:
    with pytest.raises(InputError, match="control character"):
        render.template("node.sh.j2", **{**SPEC, "environment": [("NAME", bad)]}, **NODE, launcher="python")
