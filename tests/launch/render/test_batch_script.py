"""The rendered batch script in every case in which something that it needs is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch import Batch

EXECUTORS = ("submitit", "nemo_run")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_whose_files_are_there_works_and_is_judged_once(tmp_path: Path, executor: str) -> None:
    ran = Batch(tmp_path, executor=executor).run()
    assert ran.code == 0, ran.log + ran.early
    assert [ran.count(f"interpreter boot.py {verb}") for verb in ("prologue", "work", "finish")] == [1, 1, 1]
    assert ran.count("scontrol requeue") == 0


# Nothing runs without what makes it safe


@pytest.mark.failure(1)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_work_where_the_host_script_cannot_be_read(tmp_path: Path, executor: str) -> None:
    """Neither claim nor gate nor verdict would be there; the job goes to another node, and this one is excluded."""
    batch = Batch(tmp_path, executor=executor)
    batch.request.scripts.host.unlink()
    ran = batch.run()
    assert ran.code == 74
    assert ran.count("srun") == 0
    assert ran.count("scontrol requeue 7") == 1
    assert "scontrol update jobid=7 excnodelist=4102444800,node1" in ran.calls
    assert "host.sh cannot be read on node1" in ran.early


@pytest.mark.failure(1)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_work_where_half_of_the_host_script_was_read(tmp_path: Path, executor: str) -> None:
    """Cut after each line in turn: whatever bash makes of it, the work is never started."""
    batch = Batch(tmp_path, executor=executor)
    whole = batch.request.scripts.host.read_text().splitlines(keepends=True)
    lasts = [number for number, line in enumerate(whole) if number > 150 or line.startswith(("}", "export", "trap"))]
    for last in lasts[:: 1 if executor == "submitit" else 7]:
        batch.request.scripts.host.write_text("".join(whole[:last]))
        ran = batch.run(OVERNIGHT_ENTERED="6.0", OVERNIGHT_MASTER_ADDR="of.another.job")
        assert ran.count("interpreter boot.py work") == 0, last
        assert ran.code != 0, last


@pytest.mark.failure(1)
def test_no_work_where_no_log_can_be_written(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    (batch.stage / "logs").rmdir()
    ran = batch.run()
    assert ran.code == 74
    assert not [call for call in ran.calls if call.startswith(("srun", "interpreter"))]
    assert "no log can be written in" in ran.early


@pytest.mark.failure(1)
@pytest.mark.parametrize("how", ["missing", "not executable", "of another machine"])
def test_no_work_without_an_interpreter(tmp_path: Path, how: str) -> None:
    batch = Batch(tmp_path)
    if how == "missing":
        batch.python.unlink()
    elif how == "not executable":
        batch.python.chmod(0o644)
    else:
        batch.python.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 64)
    ran = batch.run()
    assert ran.code == 74, ran.log
    assert ran.count("srun") == 0
    assert ran.count("scontrol requeue 7") == 1
    assert f"{batch.python} cannot be started on node1" in ran.log


@pytest.mark.failure(8)
@pytest.mark.parametrize(
    ("sinfo", "restarts"), [("echo node1", "0"), ("exit 1", "0"), ("printf 'node1\\nnode2\\n'", "3")]
)
def test_a_job_stays_where_no_other_node_is_left_or_after_three_moves(
    tmp_path: Path, sinfo: str, restarts: str
) -> None:
    batch = Batch(tmp_path)
    batch.command("sinfo", sinfo)
    batch.request.scripts.host.unlink()
    ran = batch.run(SLURM_RESTART_COUNT=restarts)
    assert ran.code == 74
    assert ran.count("scontrol requeue") == 0
