"""The batch script of a task of an array (``data corpus --cluster``) where something that it needs is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.verdict import FailureClass
from launch.cli import data_cluster
from launch.render.executors import NAMES
from tests.support.batch import PYTHON, Batch, Ran


def told(batch: Batch, ran: Ran) -> str:
    """What the command says of the task."""
    return data_cluster._failed("read", 0, f"ended with exit code {ran.code}", batch.request.logs / "7_0.log").message


@pytest.mark.failure(1)
@pytest.mark.parametrize("executor", NAMES)
def test_a_task_whose_files_are_there_does_its_shard(tmp_path: Path, executor: str) -> None:
    batch = Batch.of_array(tmp_path, executor)
    ran = batch.run()
    assert ran.code == 0, ran.log + ran.early
    assert [call for call in ran.calls if call.startswith("interpreter")] == [
        f"interpreter {tmp_path}/w/runs/abcdef/code/toolkit/overnight_job.py shard {batch.stage}/tasks.json 0"
    ]
    assert not (batch.stage / "exit-0").exists()


@pytest.mark.failure(1)
@pytest.mark.parametrize("executor", NAMES)
def test_no_shard_where_the_host_script_cannot_be_read(tmp_path: Path, executor: str) -> None:
    batch = Batch.of_array(tmp_path, executor)
    batch.request.scripts.host.unlink()
    ran = batch.run()
    assert ran.code == 74
    assert ran.count("srun") == 0
    assert (ran.count("scontrol requeue 7"), ran.count("scontrol update jobid=7 excnodelist=")) == (1, 1)
    assert f"({FailureClass.ENVIRONMENT.value})" in told(batch, ran)
    assert "No such file or directory" in told(batch, ran)


@pytest.mark.failure(1)
def test_no_shard_where_half_of_the_host_script_was_read(tmp_path: Path) -> None:
    """Cut after each line in turn."""
    batch = Batch.of_array(tmp_path)
    whole = batch.request.scripts.host.read_text().splitlines(keepends=True)
    for last in range(len(whole)):
        batch.request.scripts.host.write_text("".join(whole[:last]))
        ran = batch.run(OVERNIGHT_ENTERED="6.0")
        assert ran.count("interpreter") == 0, last
        assert ran.code != 0, last


@pytest.mark.failure(1)
def test_no_shard_where_no_log_can_be_written(tmp_path: Path) -> None:
    batch = Batch.of_array(tmp_path)
    batch.request.logs.rmdir()
    ran = batch.run()
    assert ran.code == 74
    assert not [call for call in ran.calls if call.startswith(("srun", "interpreter"))]
    assert "logs/7_0.log: No such file or directory" in told(batch, ran)


LACKS = {
    "no interpreter": ("", "", FailureClass.ENVIRONMENT, "No such file or directory"),
    "an interpreter of another machine": ("elf", "", FailureClass.ENVIRONMENT, "cannot execute binary file"),
    "no srun": ("", "PATH=/usr/bin:/bin; srun() { not-there-srun; }", FailureClass.ENVIRONMENT, "not-there-srun: command not found"),
    "a module": ("", "module() { return 1; }; export -f module", FailureClass.ENVIRONMENT, "module load cuda/12 failed on"),
    "an image": ("", "", FailureClass.IMAGE, "401 Unauthorized"),
    "a library": ("error while loading shared libraries: libx.so.1", "", FailureClass.ENVIRONMENT, "libx.so.1"),
    "a name": ("socket.gaierror: [Errno -2] Name or service not known", "", FailureClass.NAMES, "Name or service not known"),
}  # fmt: skip


@pytest.mark.failure(9)
@pytest.mark.parametrize("name", LACKS)
def test_what_a_node_lacks_is_told_with_its_class_and_line(tmp_path: Path, name: str) -> None:
    python, setup, failure, words = LACKS[name]
    more = f"setup: ['{setup}']\n" if setup else ""
    batch = Batch.of_array(tmp_path, more=more + ("modules: [cuda/12]\n" if name == "a module" else ""))
    if name == "no interpreter":
        batch.python.unlink()
    elif python == "elf":
        batch.python.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 64)
    elif python:
        batch.command("interpreter", f'echo "{python}" >&2; exit 1\n' + PYTHON)
    if name == "an image":
        said = "pyxis: [INFO] Fetching\nslurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized"
        batch.command("srun", f"printf '{said}\n' >&2; exit 1")
    ran = batch.run()
    assert ran.code not in (0, 74)
    assert (batch.stage / "exit-0").read_text().strip() == str(ran.code)
    assert ran.count("scontrol requeue") == 0
    said = told(batch, ran)
    assert f"({failure.value})" in said, ran.log
    assert words in said


@pytest.mark.failure(33)
@pytest.mark.parametrize("signal", ["TERM", "HUP"])
def test_a_task_that_slurm_ends_says_nothing_for_it_may_start_again(tmp_path: Path, signal: str) -> None:
    batch = Batch.of_array(tmp_path)
    batch.command("srun", f"kill -{signal} $PPID; sleep 0.3; exit 1")
    assert batch.run().code == 143
    assert not (batch.stage / "exit-0").exists()


@pytest.mark.failure(9, 33)
@pytest.mark.parametrize(("signal", "step"), [pytest.param("TERM", 1, marks=pytest.mark.full), ("TERM", 5), ("HUP", 7)])
def test_a_signal_at_any_line_is_no_failure_of_the_shard(tmp_path: Path, signal: str, step: int) -> None:
    """Slurm starts the task again, or knows why it does not; the shard is never taken for failed."""
    longest = Batch.of_array(tmp_path / "whole").commands()
    assert longest > 15
    codes = set()
    for number in range(1, longest + 1, step):
        batch = Batch.of_array(tmp_path / str(number))
        ran = batch.run_with_signal(signal, number)
        assert not (batch.stage / "exit-0").exists(), number
        assert ran.count("interpreter") <= 1
        codes.add(ran.code)
    assert 143 in codes
    assert codes <= {143, 0, -15, -1}


@pytest.mark.failure(9)
def test_a_trap_of_the_set_up_lines_runs_too(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    batch = Batch.of_array(tmp_path, more=f"setup: ['trap \"echo ended with \\$? >>{ends}\" EXIT']\n")
    assert batch.run(WORK="3").code == 3
    assert ends.read_text() == "ended with 3\n"
