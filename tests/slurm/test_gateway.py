"""The gateway on a real Slurm: its answers, its refusals, its silence."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from jobs.core.slurm_states import JobState
from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def gateway(slurm: Slurm) -> Gateway:
    return Gateway(slurm.slurm_conf)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/bash\n#SBATCH --output=/dev/null\nsleep ${1:-0}\n")
    return path


def row(gateway: Gateway, job: str) -> QueueRow:
    (found,) = [row for row in gateway.squeue() if row.job_id == job]
    return found


def test_a_job_from_pending_to_completed(gateway: Gateway, slurm: Slurm, script: Path) -> None:
    before = time.time() - 1
    job = gateway.sbatch(script, extra=["-J", "x.y-1", "-N2", "--hold"])
    waiting = row(gateway, job)
    assert (waiting.name, waiting.state, waiting.nodes) == ("x.y-1", JobState.PENDING, 2)
    assert waiting.why == "held by its owner; release it with: scontrol release JOB"
    assert before <= (waiting.submitted or 0) <= time.time()
    slurm.run(["scontrol", "release", job])
    slurm.wait_for_state(job, "COMPLETED")
    done = row(gateway, job)
    assert (done.state, done.why, len(done.node_list)) == (JobState.COMPLETED, "", len("node[1-2]"))
    assert before <= (done.start or 0) <= (done.end or 0) <= time.time() + 1


@pytest.mark.parametrize("name", ["we|ird, name", "line\nbreak", "sep\x1fa\x1erated", "é '\"$;"])
@pytest.mark.failure(23)
def test_names_of_other_jobs_do_not_matter(gateway: Gateway, script: Path, name: str) -> None:
    job = gateway.sbatch(script, extra=["-J", name])
    assert row(gateway, job).name == name


@pytest.mark.parametrize(
    ("options", "meaning"),
    [
        (["-p", "nope"], "there is no such partition"),
        (["-N", "99"], "not this many nodes"),
        (["-t", "1000:00:00"], "more than the partition allows"),
        (["-c", "999"], "no node has|not this many nodes or CPUs"),
        (["--gres=gpu:nope:1"], "no node has"),
        (["--constraint=nope"], "no node has"),
        (["--no-such-flag"], "an option that we pass"),
    ],
)
def test_refusals(gateway: Gateway, script: Path, options: list[str], meaning: str) -> None:
    before = {row.job_id for row in gateway.squeue() if not row.is_refusal}
    with pytest.raises(RejectedByCluster, match=meaning) as caught:
        gateway.sbatch(script, extra=options)
    assert caught.value.command_exit_code != 0
    assert caught.value.stderr
    assert {row.job_id for row in gateway.squeue() if not row.is_refusal} == before


@pytest.mark.failure(40)
def test_cancel_of_a_chain_in_one_call(gateway: Gateway, slurm: Slurm, script: Path) -> None:
    parent = gateway.sbatch(script, extra=["--hold"])
    child = gateway.sbatch(script, extra=[f"--dependency=afterany:{parent}"])
    gateway.scancel([child, parent, "999999"])
    assert {row(gateway, job).state for job in (parent, child)} == {JobState.CANCELLED}
    gateway.scancel([child, parent])


def test_requeue(gateway: Gateway, slurm: Slurm, script: Path) -> None:
    script.write_text(script.read_text().replace("${1:-0}", "60"))
    job = gateway.sbatch(script, extra=["--requeue"])
    slurm.wait_for_state(job, "RUNNING")
    gateway.requeue(job)
    slurm.wait_for_state(job, "PENDING")
    assert row(gateway, job).why
    forbidden = gateway.sbatch(script, extra=["--no-requeue"])
    slurm.wait_for_state(forbidden, "RUNNING")
    with pytest.raises(RejectedByCluster, match="--no-requeue forbids"):
        gateway.requeue(forbidden)
    with pytest.raises(RejectedByCluster, match="does not know this job"):
        gateway.requeue("999999")


def test_a_dependency_is_replaced_and_removed(gateway: Gateway, slurm: Slurm, script: Path) -> None:
    first, second = (gateway.sbatch(script, extra=["--hold"]) for _ in range(2))
    child = gateway.sbatch(script, extra=[f"--dependency=afterok:{first}"])
    gateway.update_dependency(child, f"afterok:{second}")
    assert row(gateway, child).dependency.startswith(f"afterok:{second}")
    gateway.update_dependency(child, "")
    slurm.wait_for_state(child, "COMPLETED")
    with pytest.raises(RejectedByCluster, match=r"not waiting any more|already ended"):
        gateway.update_dependency(child, f"afterok:{second}")


@pytest.mark.failure(20)
def test_without_accounting_there_is_no_sacct(gateway: Gateway) -> None:
    assert gateway.sacct(since=time.time() - 60) is None


def test_accounting_shows_both_runs_of_a_requeued_job(slurm_accounting: Slurm, script: Path) -> None:
    gateway = Gateway(slurm_accounting.slurm_conf)
    began = time.time()
    job = gateway.sbatch(script, extra=["-J", "acc|ounted\nname", "--requeue", "--hold"])
    slurm_accounting.run(["scontrol", "release", job])
    slurm_accounting.wait_for_state(job, "COMPLETED")
    end = time.monotonic() + 20  # the database lags behind
    while True:
        rows = [row for row in gateway.sacct(since=began - 5) or [] if row.job_id == job]
        if rows and rows[-1].state is JobState.COMPLETED:
            break
        assert time.monotonic() < end, rows
        time.sleep(0.2)
    assert (rows[-1].name, rows[-1].exit_code) == ("acc|ounted\nname", "0:0")
    assert rows[-1].start is not None


@pytest.mark.failure(13)
def test_submit_limit_is_named(slurm_accounting: Slurm, script: Path) -> None:
    gateway = Gateway(slurm_accounting.slurm_conf)
    change = ["sacctmgr", "-i", "modify", "user", "where", f"name={_me()}", "set"]
    slurm_accounting.run([*change, "maxsubmitjobs=0"])
    try:
        message = _refusal(gateway, script)
    finally:
        slurm_accounting.run([*change, "maxsubmitjobs=-1"])
    assert "limit" in message
    assert "AssocMaxSubmitJobLimit" in message or "does not say which" in message


def _refusal(gateway: Gateway, script: Path) -> str:
    """What sbatch is refused with; the controller learns of a new limit a little later."""
    for _ in range(50):
        try:
            gateway.sbatch(script, extra=["--hold"])
        except RejectedByCluster as error:
            return error.message
        time.sleep(0.2)
    raise AssertionError("never refused")


def _me() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.full
def test_a_controller_that_is_gone_is_silence(slurm: Slurm, script: Path, tmp_path: Path) -> None:
    # A copy of the configuration with a port where nobody listens.
    conf = tmp_path / "slurm.conf"
    text = slurm.slurm_conf.read_text()
    conf.write_text(re.sub(r"^SlurmctldPort=\d+$", "SlurmctldPort=1", text, flags=re.MULTILINE))
    gateway = Gateway(conf)
    for call in (gateway.squeue, lambda: gateway.sbatch(script)):
        with pytest.raises(ClusterUnreachable):
            call()


def test_without_a_configuration(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine belongs to a cluster")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    with pytest.raises(RejectedByCluster, match="does not know where Slurm's controller is"):
        Gateway().squeue()
