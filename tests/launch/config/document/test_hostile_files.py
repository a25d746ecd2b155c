"""Hostile text in every field of a profile that reaches a script: refused, or handed on as it is, and never run.

The rendered scripts are executed by a real bash. Around them stand programs that only note what they were told.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.config.profile_file import read_profile
from launch.inputs import toolkit
from launch.render import scripts
from launch.render.executors import carrier
from launch.runs.rundir import Run
from tests.support import made_runs

CANARY = "canary-was-run"
PARTS = (
    "\n", "\r", "\x00", "\x1b[31m", "\u2028", "\x85", f"\n#SBATCH --comment={CANARY}", f"$(touch {CANARY})",
    f"`touch {CANARY}`", f"; touch {CANARY}; ", f"' ; touch {CANARY} ; '", f'" ; touch {CANARY} ; "', f"|| touch {CANARY}",
    f"\ntouch {CANARY}\n", f"<(touch {CANARY})", "${IFS}", "\\", "'", '"', "!!", "*", "~", "%j", "{{ 7 * 7 }}", "{% raw %}",
    "é", "模型", " ", "\t", "-", "--wrap=", "=", ",", ":", "#", "a" * 4096,
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)

FIELDS: dict[str, Any] = {
    "partition": lambda text: text, "account": lambda text: text, "qos": lambda text: text,
    "reservation": lambda text: text, "constraint": lambda text: text,
    "env": lambda text: {"ONE": text, "TWO": f"x{text}"},
    "sbatch": lambda text: {"comment": text, "gres-flags": text}, "srun": lambda text: [f"--export={text}", text],
    "modules": lambda text: [text], "gpu_request": lambda text: {"form": "gres", "model": text},
    "srun_options": lambda text: {"mpi": text, "cpu_bind": text, "network": text},
    "resources": lambda text: {"default": {"partition": text, "constraint": text, "time": "10", "gpus_per_node": 2}},
    "workspace": lambda text: f"/w/{text}", "notify": lambda text: {"mail": text},
    "environments": lambda text: {"core": {"python": text}, "waiting": {"venv": f"/v/{text}"}},
    "containers": lambda text: {"options": [text], "executable": text, "mounts": [f"/m/{text}"]},
}  # fmt: skip
"""Key of a profile -> a value of its type that holds the text wherever it may."""

DOUBLE = """#!/bin/bash
# Notes its name and arguments, in one write, as others do at the same time; answers as far as the scripts need it.
printf '%s\\0' "${0##*/}" "$@" >NOTES.$$
cat NOTES.$$ >>NOTES
case ${0##*/} in scontrol) echo node1 ;; squeue) echo 2000000000 ;; esac
exit 0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place / "state"))
        patch.setattr(toolkit, "PACKAGES", ("jobs",))
        made = made_runs.make(place / "ws", made_runs.stage("cpt"))
    made.paths.stage("cpt").root.mkdir(parents=True)  # where its script begins
    return made


def profile_of(directory: Path, values: dict[str, Any]) -> Profile:
    """The profile, through a file as a user writes it."""
    path = directory / "site.yaml"
    data = {"executor": "slurm", "poll_seconds": 0.5, **values}
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in data.items()), encoding="utf-8")
    return read_profile(path).profile


def accepted(directory: Path, texts: dict[str, str]) -> dict[str, Any]:
    """The fields whose text is not refused by the profile; a refusal is an error in our own words."""
    found: dict[str, Any] = {}
    for field, text in texts.items():
        value = FIELDS[field](text)
        try:
            profile_of(directory, {field: value})
        except InputError as error:
            assert error.where is not None
        else:
            found[field] = value
    return found


def execute(run: Run, profile: Profile, executor: str, place: Path) -> list[str]:
    """Render all scripts of a stage and run them; what the programs were told."""
    doubles = place / "bin"
    doubles.mkdir(exist_ok=True)
    for name in ("srun", "scontrol", "squeue", "module", "python", "sbatch", "sleep"):
        (doubles / name).write_text(DOUBLE.replace("NOTES", f"{place}/notes"))
        (doubles / name).chmod(0o755)
    python = str(doubles / "python")
    plan = replace(run.plan(), core_python=python)
    stage = replace(plan.stage("cpt"), python=python, resources=profile.resources_for("cpt"), executor=executor)
    attempt = "hostil"
    paths = run.paths.stage("cpt").scripts(attempt)
    paths.root.mkdir(parents=True, exist_ok=True)
    run.paths.stage("cpt").logs.mkdir(exist_ok=True)
    texts = scripts.stage_scripts(run, plan, stage, profile, attempt)
    paths.host.write_text(texts.host, encoding="utf-8")
    paths.node.write_text(texts.node, encoding="utf-8")
    paths.node.chmod(0o755)
    job = place / "job.sh"
    job.write_text(carrier(executor).render(scripts.request(run, stage, profile, attempt, 0, None)), encoding="utf-8")
    environment = {
        "PATH": f"{doubles}:{os.environ['PATH']}",
        "HOME": str(place),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node1",
        "LC_ALL": "C.UTF-8",
    }
    for script in (job, paths.node):
        subprocess.run(["bash", script], cwd=place, env=environment, capture_output=True, timeout=120, check=False)
        environment["OVERNIGHT_ENTERED"] = "7.0"  # node.sh works only in a job that host.sh has prepared
    notes = (place / "notes").read_bytes().decode() if (place / "notes").exists() else ""
    return notes.split("\0")


@pytest.mark.failure(16, 26)
@pytest.mark.parametrize("executor", ["submitit", "nemo_run"])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.fixed_dictionaries(dict.fromkeys(FIELDS, HOSTILE)))
@example(texts=dict.fromkeys(FIELDS, f"x$(touch {CANARY})'\"`touch {CANARY}`"))
@example(texts=dict.fromkeys(FIELDS, f"x\n#SBATCH --comment={CANARY}"))
@example(texts=dict.fromkeys(FIELDS, "模型é" * 1000))
def test_no_field_is_ever_run(
    run: Run, tmp_path_factory: pytest.TempPathFactory, executor: str, texts: dict[str, str]
) -> None:
    pytest.importorskip(executor)
    place = tmp_path_factory.mktemp("place")
    values = accepted(place, texts)
    try:
        profile = profile_of(place, {"resources": {"default": {"time": "10"}}, **values})
        told = execute(run, profile, executor, place)
    except InputError:
        return  # what the parts alone do not show, such as a mount without an image: refused, too
    assert not list(place.rglob(CANARY)), values
    assert not list(run.paths.root.rglob(CANARY)), values
    header = [line for line in (place / "job.sh").read_text().splitlines() if line.startswith("#SBATCH")]
    assert not any(line.startswith(f"#SBATCH --comment={CANARY}") for line in header)
    assert "srun" in told, "the script came as far as the work"
    for argument in values.get("srun", ()):
        assert argument in told, "as it was written, in one piece"


@pytest.mark.failure(16)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bad", ["a\nb", "a\x1bb", "a\u2028b", "a\x85b"])
def test_every_field_refuses_what_could_start_a_line(tmp_path: Path, field: str, bad: str) -> None:
    with pytest.raises(InputError):
        profile_of(tmp_path, {field: FIELDS[field](bad)})


@pytest.mark.failure(26)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=HOSTILE)
def test_a_variable_arrives_as_it_was_written(run: Run, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = tmp_path_factory.mktemp("place")
    try:
        profile = profile_of(place, {"env": {"mixedCase_1": text}, "resources": {"default": {"time": "10"}}})
        node = scripts.stage_scripts(run, run.plan(), run.plan().stage("cpt"), profile, "hostil").node
    except InputError:
        return
    shown = node.replace("exec ", 'printf %s "$mixedCase_1"; exit; ')
    done = subprocess.run(
        ["bash", "-c", shown],
        cwd=place,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "OVERNIGHT_ENTERED": "7.0"},
    )
    assert done.stdout.decode() == text
    assert not list(place.rglob(CANARY))
