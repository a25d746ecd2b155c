"""The two scripts of a stage: shellcheck has nothing to say, and hostile values stay values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.core.slurm_states import JobState
from launch.base.errors import InputError
from launch.render import templates

NASTY = '/x/it\'s $(touch /tmp/never) `id` "q"; rm -rf é'
SPEC: dict[str, Any] = {
    "stage": "cpt", "stage_dir": "/w/runs/abcde/stages/cpt", "boot": "/w/boot.py", "spec": "/w/spec.json",
    "environment": [("NAME", NASTY)], "secrets": None,
}  # fmt: skip
HOST = {"core_python": "/venv/bin/python", "watch_seconds": 30, "seal": "/w/store/x/seal.json"}
MORE = {"onward": ["/venv/bin/python", NASTY], "run": "abcde", "notify": NASTY, "notify_on": ("done", "failed")}
ENTER = {
    "modules": ["cuda/12", NASTY],
    "enter": ["apptainer", "exec", NASTY],
    "variables": ["HF_TOKEN"],
    "prefix": "X_",
    "node": "/w/node.sh",
}
NODE = {
    "scratch": "/local",
    "stage_python": "/venv/bin/python",
    "nodes": 2,
    "processes": 4,
    "ray_seconds": 600,
    **ENTER,
}


def texts() -> dict[str, str]:
    host = {"host.sh": "#!/bin/bash\n" + templates.template("host.sh.j2", **SPEC, **HOST)}
    host["host-more.sh"] = "#!/bin/bash\n" + templates.template("host.sh.j2", **SPEC, **HOST, **MORE)
    launchers = ("python", "torchrun", "ray")
    return host | {
        f"node-{one}.sh": templates.template("node.sh.j2", **SPEC, **NODE, launcher=one) for one in launchers
    }


@pytest.mark.parametrize("name", texts())
def test_shellcheck(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(texts()[name])
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-S", "warning", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.failure(26)
def test_a_value_is_never_run(tmp_path: Path) -> None:
    plain = {"modules": (), "enter": (), "scratch": None}
    text = templates.template("node.sh.j2", **{**SPEC, "stage_dir": tmp_path}, **{**NODE, **plain}, launcher="python")
    shown = text.replace("exec ", "printf '%s' \"$NAME\"; : ")
    prepared = {**os.environ, "SLURM_JOB_ID": "7", "OVERNIGHT_ENTERED": "7.0"}
    done = subprocess.run(["bash", "-c", shown], env=prepared, capture_output=True, text=True, check=True)
    assert done.stdout == NASTY


@pytest.mark.parametrize(
    ("gpus", "nodes", "given", "told"),
    [(1, 2, None, "WARN"), (8, 1, None, "WARN"), (8, 1, "INFO", "INFO"), (8, 1, "", ""), (1, 1, None, "unset"), (0, 4, None, "unset")],
)  # fmt: skip
def test_nccl_tells_its_reasons_where_several_gpus_talk(
    tmp_path: Path, gpus: int, nodes: int, given: str | None, told: str
) -> None:
    """A value of the profile, of modules or of the set-up counts."""
    plain = {"modules": (), "enter": (), "scratch": None, "node_gpus": gpus, "nodes": nodes}
    environment = {"environment": [] if given is None else [("NCCL_DEBUG", given)], "stage_dir": tmp_path}
    text = templates.template("node.sh.j2", **{**SPEC, **environment}, **{**NODE, **plain}, launcher="python")
    shown = text.replace("exec ", 'printf %s "${NCCL_DEBUG-unset}"; : ')
    prepared = {**os.environ, "SLURM_JOB_ID": "7", "OVERNIGHT_ENTERED": "7.0"}
    prepared.pop("NCCL_DEBUG", None)
    done = subprocess.run(["bash", "-c", shown], env=prepared, capture_output=True, text=True, check=True)
    assert done.stdout == told


def left(tmp_path: Path, code: str, on: tuple[str, ...]) -> tuple[int, str]:
    """What ``overnight_leave`` of host.sh does."""
    told = f'printf "%s %s %s" "$OVERNIGHT_EVENT" "$OVERNIGHT_RUN" "$OVERNIGHT_STAGE" >>{tmp_path}/told'
    more = {"onward": ["echo", "onward"], "run": "abcde", "notify": told, "notify_on": on}
    text = templates.template("host.sh.j2", **SPEC, **HOST, **more)
    functions = text[text.index("overnight_onward()") : text.index("overnight_exit()")]
    done = subprocess.run(
        ["bash", "-c", f"SLURM_JOB_ID=7\n{functions}\novernight_leave {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("code", "on", "told"),
    [
        ("0 done", ("done", "failed"), "done abcde cpt"),
        ("9 failed", ("done", "failed"), "failed abcde cpt"),
        ("0 done", ("failed",), ""),
        ("75", ("done", "failed"), ""),
    ],
)
def test_a_job_that_ends_tells_and_goes_on(tmp_path: Path, code: str, on: tuple[str, ...], told: str) -> None:
    assert left(tmp_path, code, on) == (int(code.split()[0]), "onward 7\n")
    file = tmp_path / "told"
    assert (file.read_text() if file.exists() else "") == told


@pytest.mark.parametrize("state", ["", *JobState])
@pytest.mark.failure(10, 21)
def test_a_job_is_over_where_slurm_is_done_with_it(tmp_path: Path, state: JobState | str) -> None:
    text = templates.template("host.sh.j2", **SPEC, **HOST)
    function = text[text.index("overnight_is_over()") : text.index("# A second copy")]
    asked = f"squeue() {{ echo {state}; }}\n{function}\novernight_is_over 7"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, check=False)
    assert (done.returncode == 0) == (state == "" or JobState(state).is_final)


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\x00b", "a\x1b[31m"])
@pytest.mark.failure(16)
def test_control_characters_are_refused(bad: str) -> None:
    with pytest.raises(InputError, match="control character"):
        templates.template("node.sh.j2", **{**SPEC, "environment": [("NAME", bad)]}, **NODE, launcher="python")
