"""``overnight submit`` as it goes: what it has imported, used and printed each time it starts sbatch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent.parent

PIPELINE = """\
name: three
model: {base: ./base}
stages:
  corpus: {kind: corpus, from: ./text.txt}
  cpt: {kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 4, lr: 0.5}
  final: {kind: evaluate, backend: toy, checkpoint: cpt, tasks: {perplexity: {data: corpus}}}
"""
PROFILE = 'executor: slurm\nresources: {default: {nodes: 1, time: "0:10:00"}}\n'

WATCHED = """\
import json, sys
starts = []

def watch(event, given):
    if event == "subprocess.Popen" and given[0] == "sbatch":
        libraries = [name for name in ("submitit", "nemo_run") if name in sys.modules]
        printed = open(sys.argv[1]).read().count(" submitted ")
        starts.append({"libraries": libraries, "printed": printed})

sys.addaudithook(watch)
from launch.cli.main import main
code = main(sys.argv[3:])
with open(sys.argv[2], "w") as stream:
    json.dump({"code": code, "starts": starts}, stream)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A pipeline with its data, a profile, and a Slurm that gives every job a number and forgets it."""
    (tmp_path / "text.txt").write_text("One line.\n" * 50)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}\n")
    (tmp_path / "base" / "model.safetensors").write_bytes(os.urandom(100))
    (tmp_path / "three.yaml").write_text(PIPELINE)
    (tmp_path / "site.yaml").write_text(PROFILE)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sbatch").write_text(f"#!/bin/bash\necho x >>{tmp_path}/jobs\nwc -l <{tmp_path}/jobs\n")
    (commands / "squeue").write_text("#!/bin/bash\nexit 0\n")
    for name in ("sbatch", "squeue"):
        (commands / name).chmod(0o755)
    return tmp_path


def environment_of(directory: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{directory}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OVERNIGHT_WORKSPACE": str(directory / "w"),
        "XDG_STATE_HOME": str(directory / "state"),
    }


def overnight(directory: Path, *command: str, output: Path | None = None) -> None:
    with open(output or os.devnull, "w") as stream:
        subprocess.run(
            [sys.executable, *command],
            env=environment_of(directory),
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=True,
        )


def test_the_first_job_is_queued_before_the_library_of_a_later_one_is_imported(directory: Path) -> None:
    pytest.importorskip("submitit")
    pytest.importorskip("nemo_run")
    pipeline, profile = str(directory / "three.yaml"), str(directory / "site.yaml")
    overnight(directory, "-m", "launch.cli", "fetch", pipeline, "--cluster", "local")
    printed, found = directory / "printed", directory / "found.json"
    arguments = ["submit", pipeline, "--cluster", profile]
    overnight(directory, "-c", WATCHED, str(printed), str(found), *arguments, output=printed)
    said = json.loads(found.read_text())
    assert said["code"] == 0, printed.read_text()
    first, second, third = said["starts"]
    assert first["libraries"] == ["submitit"]
    assert "nemo_run" in second["libraries"]
    # Each stage is printed before the next one is submitted.
    assert [each["printed"] for each in (first, second, third)] == [0, 1, 2]
    assert printed.read_text().count(" submitted ") == 3


@pytest.mark.failure(12)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_a_reader_that_leaves_loses_nothing(directory: Path, both: bool) -> None:
    """``overnight submit ... | head -1``: all jobs are submitted, and the command ends as if it had been read."""
    pipeline = str(directory / "three.yaml")
    overnight(directory, "-m", "launch.cli", "fetch", pipeline)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "submit", pipeline, "--cluster", str(directory / "site.yaml")],
        env=environment_of(directory), stdout=writing, stderr=writing if both else subprocess.PIPE, timeout=300,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr or b"") == (0, b"")
    assert (directory / "jobs").read_text().count("x") == 3


WITHOUT = """\
import sys
sys.modules[sys.argv[1]] = None
from launch.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("library", "extra"), [("submitit", "submitit"), ("nemo_run", "nemo-run")])
def test_an_executor_that_is_not_installed_is_refused_before_there_is_a_run(
    directory: Path, library: str, extra: str
) -> None:
    pipeline, profile = str(directory / "three.yaml"), str(directory / "site.yaml")
    overnight(directory, "-m", "launch.cli", "fetch", pipeline)
    command = [sys.executable, "-c", WITHOUT, library, "submit", pipeline, "--cluster", profile]
    done = subprocess.run(command, env=environment_of(directory), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert f"the executor '{library}' needs {library}" in done.stderr
    assert f'pip install "overnight[{extra}]"' in done.stderr
    assert not (directory / "w/runs").exists()
    assert not (directory / "jobs").exists()


def test_resume_without_the_executor_leaves_no_attempt_to_look_for(directory: Path) -> None:
    pipeline, profile = str(directory / "three.yaml"), str(directory / "site.yaml")
    overnight(directory, "-m", "launch.cli", "fetch", pipeline)
    (directory / "bin/sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition specified' >&2\nexit 1\n"
    )
    submit = [sys.executable, "-m", "launch.cli", "submit", pipeline, "--cluster", profile]
    assert subprocess.run(submit, env=environment_of(directory), capture_output=True, timeout=300).returncode == 3
    attempts = {*(directory / "w/store").rglob("attempts/*")}
    assert attempts
    resume = [sys.executable, "-c", WITHOUT, "submitit", "resume"]
    done = subprocess.run(resume, env=environment_of(directory), capture_output=True, text=True, timeout=300)
    assert "the executor 'submitit' needs submitit" in done.stderr
    assert {*(directory / "w/store").rglob("attempts/*")} == attempts
