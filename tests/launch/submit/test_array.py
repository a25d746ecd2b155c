"""An array of jobs asks for what the profile says, as every other job does, and is cancelled by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from jobs.core.slurm_states import JobState
from launch.base.errors import ClusterUnreachable, InputError
from launch.config.fields import Duration
from launch.config.profile import Profile, Resources
from launch.config.profile_file import read_profile
from launch.render.executors import NAMES, carrier
from launch.render.request import JobRequest, sbatch_extra
from launch.runs.rundir import Run
from launch.slurm.queue import QueueRow
from launch.submit import array

PROFILE = """\
executor: slurm
account: everybody
partition: batch
gpu_request: gres
exclusive: always
executors: {corpus: EXECUTOR}
remove: [kill-on-invalid-dep, wckey]
modules: [zstd/1.5]
setup: ["umask 027"]
env: {SITE_VARIABLE: "of the site"}
sbatch: {comment: data}
resources:
  default: {time: "2:00:00", mem: 1G, nodes: 4, processes_per_node: 4}
  corpus: {account: corpora, qos: long, mem: 3G, cpus: 6, gpus_per_node: 1, reservation: nightly, constraint: ssd}
"""


def profile_of(tmp_path: Path, executor: str = "submitit", text: str = PROFILE) -> Profile:
    path = tmp_path / "lab.yaml"
    path.write_text(text.replace("EXECUTOR", executor), encoding="utf-8")
    return read_profile(path).profile


def asked(tmp_path: Path, profile: Profile, count: int = 12, parallel: int = 3) -> JobRequest:
    return array.write(Run(Workspace(tmp_path / "work"), "abc123"), "read-0", "corpus", profile, count, parallel)


@pytest.mark.parametrize("executor", NAMES)
def test_the_header_holds_what_the_profile_says_for_a_corpus(tmp_path: Path, executor: str) -> None:
    pytest.importorskip(executor)
    request = asked(tmp_path, profile_of(tmp_path, executor))
    lines = carrier(executor).render(request).splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    expected = {
        "account": "corpora", "qos": "long", "mem": "3G", "cpus-per-task": "6", "gres": "gpu:1", "nodes": "1",
        "reservation": "nightly", "constraint": "ssd", "exclusive": "", "comment": "data", "partition": "batch",
        "time": "120", "ntasks-per-node": "1",
    }  # fmt: skip
    assert {name: options.get(name) for name in expected} == expected
    assert "kill-on-invalid-dep" not in options
    assert "umask 027" in lines
    assert sbatch_extra(request) == ["--array=0-11%3"]
    node = request.scripts.node.read_text()
    assert "module load zstd/1.5" in node
    assert "export SITE_VARIABLE='of the site'" in node
    assert f"shard {tmp_path}/work/runs/abc123/stages/read-0/tasks.json" in node


def test_shellcheck(tmp_path: Path) -> None:
    scripts = asked(tmp_path, profile_of(tmp_path)).scripts
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-s", "bash", "-S", "warning", scripts.host, scripts.node],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_without_a_time_limit_nothing_is_guessed(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, text="executor: slurm\npartition: batch\n")
    with pytest.raises(InputError, match="has no time limit"):
        asked(tmp_path, profile)


@pytest.mark.parametrize("text", ["0-9", "0-9%0", "1,2", "0-9%2 --wrap=id"])
def test_only_an_array_of_ours_goes_on_the_command_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="is not an array"):
        JobRequest(name="a", stage_dir=tmp_path, resources=Resources(time=Duration("1")), array=text)


def row(job: str, name: str, state: JobState = JobState.RUNNING) -> QueueRow:
    return QueueRow(job, name, state, "", None, None, None, 1, "", "batch", "")


class Queue:
    """A Slurm with these rows; ``silent``: how many questions get no answer first."""

    def __init__(self, rows: list[QueueRow], silent: int = 0) -> None:
        self.rows = rows
        self.silent = silent
        self.cancelled: list[list[str]] = []

    def squeue(self) -> list[QueueRow]:
        if self.silent:
            self.silent -= 1
            raise ClusterUnreachable("no response", command=("squeue",), since=0.0)
        return self.rows

    def scancel(self, ids: list[str]) -> None:
        self.cancelled.append(ids)
        self.rows = [one for one in self.rows if one.job_id not in ids]


def test_a_submission_that_was_cut_off_is_cancelled_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array, "_POLL_SECONDS", 0.0)
    request = asked(tmp_path, profile_of(tmp_path))
    others = [row("7", "on-other-read-0-array"), row("8", request.name, JobState.COMPLETED)]
    queue = Queue([*others, row("9", request.name), row("10", request.name)], silent=2)
    jobs = array.JobArray(request, "submitit", queue)  # type: ignore[arg-type]
    assert jobs.is_queued(), "no response says nothing"
    jobs.cancel()
    assert queue.cancelled == [["10", "9"]]
    assert not jobs.is_queued()
    assert "job 9 is cancelled" in capsys.readouterr().err


def test_the_list_of_tasks_is_json(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    from data_prep.corpus import tasks

    path = tmp_path / "tasks.json"
    tasks.write(path, tmp_path, "read", [[4, 5], [7]])
    assert json.loads(path.read_text()) == {"root": str(tmp_path), "phase": "read", "shards": [[4, 5], [7]]}
    assert tasks.failures(path) == {}


def test_failures_of_tasks_are_read_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    from data_prep.common.errors import DataError, SettingsError
    from data_prep.corpus import tasks

    path = tmp_path / "tasks.json"
    tasks.write(path, tmp_path, "read", [[4], [7]])
    assert tasks.main(path, 1) == 1, "there is no plan of a build"
    (tmp_path / "exit-1").write_text("1\n")
    (tmp_path / "exit-0").write_text("137\n")
    (tmp_path / "exit-2").write_text("")  # still being written
    (tmp_path / "error-10.json").write_text('{"error": "no such language", "settings": true}')
    found = tasks.failures(path)
    assert list(found) == [0, 1, 10]
    assert found[0] == "137"
    assert isinstance(found[1], DataError)
    assert f"{tmp_path}/plan.json: no plan of a build" in str(found[1])
    assert isinstance(found[10], SettingsError)


@pytest.mark.parametrize("ended", [0, 5, 11])
def test_an_array_lives_until_its_last_task_has_ended(tmp_path: Path, ended: int) -> None:
    """Each task has a job id of its own, and the last one that of the array: uneven shards end in any order."""
    request = asked(tmp_path, profile_of(tmp_path))

    def row(task: int, state: JobState) -> QueueRow:
        job = "100" if task == 11 else str(101 + task)  # as squeue shows %A of array 100
        return QueueRow(job, request.name, state, "None", 0.0, None, None, 1, "", "batch", "")

    class Queue:
        def __init__(self) -> None:
            self.rows = [row(task, JobState.COMPLETED if task == ended else JobState.RUNNING) for task in range(12)]

        def squeue(self) -> list[QueueRow]:
            return self.rows

    queue = Queue()
    job = array.JobArray(request, "submitit", queue)  # type: ignore[arg-type]
    assert job.is_queued()
    for one in range(11):
        queue.rows[one] = row(one, JobState.COMPLETED)
    queue.rows[11] = row(11, JobState.COMPLETED)
    queue.rows[3] = row(3, JobState.RUNNING)
    assert job.is_queued(), "the last one was done first"
    queue.rows[3] = row(3, JobState.COMPLETED)
    assert not job.is_queued()
