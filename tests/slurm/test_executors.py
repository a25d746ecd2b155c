"""Both executors on a real Slurm: the same two scripts, and everything that the hand-off relies on.

host.sh and node.sh here are the smallest ones that use what the real ones use: the log of each restart, the EXIT trap
that decides, ``exit`` before the work, the requeue under the same job id.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from launch.config.fields import RESOURCE_KEYS, Resources
from launch.render.executors import NAMES, Executor, JobRequest, carrier
from launch.slurm.client import Gateway
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

HOST = """
exec >>"{stage}/logs/${{SLURM_JOB_ID}}_${{SLURM_RESTART_COUNT:-0}}.log" 2>&1
decide() {{
  local code=$?
  trap - EXIT
  echo "trap: the work ended with $code"
  {decision}
}}
trap decide EXIT
echo "host: $(hostname) in $PWD"
{prologue}
"""

PASS_ON = 'exit "$code"'


@dataclass
class Stage:
    """A stage directory on the cluster, submitted through one carrier."""

    carrier: Executor
    gateway: Gateway
    slurm: Slurm
    directory: Path

    def request(
        self, node: str, *, decision: str = PASS_ON, prologue: str = "", name: str = "stage", **changes: Any
    ) -> JobRequest:
        directory = self.directory / name
        (directory / "logs").mkdir(parents=True)
        quoted = str(directory).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        (directory / "host.sh").write_text(HOST.format(stage=quoted, decision=decision, prologue=prologue))
        (directory / "node.sh").write_text(f"#!/bin/bash\n{node}\n")
        (directory / "node.sh").chmod(0o700)
        unique = f"{name}-{type(self.carrier).__name__}-{time.monotonic_ns()}"
        asked = {key: changes.pop(key) for key in RESOURCE_KEYS if key in changes}
        return JobRequest(unique, directory, Resources(**{"time": "5", "mem": "100M", **asked}), **changes)

    def submit(self, request: JobRequest) -> str:
        return self.carrier.submit(request, self.gateway)

    def wait(self, request: JobRequest, job: str, state: str, timeout: float = 180) -> dict[str, str]:
        try:
            return self.slurm.wait_for_state(job, state, timeout)
        except AssertionError as error:
            logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(request.logs.iterdir()))
            raise AssertionError(f"{error}\n{logs}") from None


@pytest.fixture(params=NAMES)
def stage(request: pytest.FixtureRequest, slurm: Slurm, tmp_path: Path) -> Stage:
    pytest.importorskip(request.param)
    return Stage(carrier(request.param), Gateway(slurm.slurm_conf), slurm, tmp_path)


def log(request: JobRequest, job: str, restart: int = 0) -> str:
    return (request.logs / f"{job}_{restart}.log").read_text()


def test_one_node_script_on_each_node_and_all_output_in_one_log(stage: Stage) -> None:
    asked = stage.request(
        'echo "node: $SLURM_NODEID of $SLURM_NTASKS on $(hostname), $SLURM_CPUS_PER_TASK cpus"\n'
        '[ -t 1 ] && echo "a terminal"; exit 0',
        nodes=2,
        cpus=2,
    )
    job = stage.submit(asked)
    assert stage.wait(asked, job, "COMPLETED")["ExitCode"] == "0:0"
    lines = log(asked, job).splitlines()
    assert lines[0] == f"host: {lines[0].split()[1]} in {asked.stage_dir}"
    nodes = sorted(line for line in lines if line.startswith("node: "))
    assert [line.split()[:4] for line in nodes] == [["node:", "0", "of", "2"], ["node:", "1", "of", "2"]]
    assert len({line.split()[5] for line in nodes}) == 2
    assert all(line.endswith(" 2 cpus") for line in nodes)
    assert "a terminal" not in lines
    assert "trap: the work ended with 0" in lines
    assert (asked.logs / f"{job}.batch.log").read_text() == ""


@pytest.mark.failure(1)
def test_a_failed_node_reaches_the_trap_and_the_job(stage: Stage) -> None:
    # The other node would go on for a minute: --kill-on-bad-exit ends it, and srun's code is then 143, not 9.
    asked = stage.request('[ "$SLURM_NODEID" = 0 ] && sleep 60; exit 9', nodes=2)
    job = stage.submit(asked)
    stage.wait(asked, job, "FAILED", timeout=30)
    assert any(f"trap: the work ended with {code}" in log(asked, job) for code in (9, 143))


@pytest.mark.failure(1, 9)
def test_the_exact_exit_code_arrives(stage: Stage) -> None:
    asked = stage.request("exit 9")
    job = stage.submit(asked)
    assert stage.wait(asked, job, "FAILED")["ExitCode"] == "9:0"
    assert "trap: the work ended with 9" in log(asked, job)


@pytest.mark.failure(2, 9)
def test_the_trap_has_the_last_word(stage: Stage) -> None:
    asked = stage.request("exit 5", decision="exit 0")
    job = stage.submit(asked)
    assert stage.wait(asked, job, "COMPLETED")["ExitCode"] == "0:0"


def test_a_failing_command_does_not_end_the_trap(stage: Stage) -> None:
    asked = stage.request("exit 5", decision="false; kill -9 999999; exit 0")
    job = stage.submit(asked)
    stage.wait(asked, job, "COMPLETED")


def test_exit_in_host_sh_ends_the_job_before_the_work(stage: Stage) -> None:
    asked = stage.request("sleep 60", prologue="exit 0")
    began = time.monotonic()
    job = stage.submit(asked)
    stage.wait(asked, job, "COMPLETED")
    assert time.monotonic() - began < 10
    assert stage.slurm.run(["squeue", "-h", "-s", "-j", job]).stdout == ""


@pytest.mark.failure(3)
def test_requeue_from_the_trap_keeps_the_id_and_the_dependents_waiting(stage: Stage) -> None:
    parent = stage.request(
        "echo worked; exit 3",
        decision='[ "${SLURM_RESTART_COUNT:-0}" -lt 1 ] && { scontrol requeue "$SLURM_JOB_ID"; exit 75; }; exit 0',
        requeue=True,
        nodes=2,
    )
    first = stage.submit(parent)
    child = stage.request("echo child", name="child", dependency=f"afterok:{first}", kill_on_invalid_dep=True)
    second = stage.submit(child)
    end = time.monotonic() + 30
    while stage.slurm.job(first)["Restarts"] == "0":
        assert time.monotonic() < end
        time.sleep(0.1)
    (row,) = [row for row in stage.gateway.squeue() if row.job_id == second]
    assert (row.name, row.state.is_queued, row.why) == (child.name, True, "waits for an earlier stage")
    assert row.dependency.startswith(f"afterok:{first}")
    stage.wait(parent, first, "COMPLETED")
    for restart in (0, 1):
        assert "trap: the work ended with " in log(parent, first, restart)
    stage.wait(child, second, "COMPLETED")
    assert "child" in log(child, second)


def test_no_requeue_when_it_was_not_asked_for(stage: Stage) -> None:
    asked = stage.request("exit 3", decision='scontrol requeue "$SLURM_JOB_ID"; exit 4', requeue=False)
    job = stage.submit(asked)
    fields = stage.wait(asked, job, "FAILED")
    assert (fields["ExitCode"], fields["Restarts"]) == ("4:0", "0")


@pytest.mark.failure(5)
def test_a_child_of_a_failed_stage_is_cancelled(stage: Stage) -> None:
    parent = stage.request("sleep 1; exit 1")
    first = stage.submit(parent)
    child = stage.request("true", name="child", dependency=f"afterok:{first}", kill_on_invalid_dep=True)
    second = stage.submit(child)
    stage.slurm.wait_for_state(second, "CANCELLED")


@pytest.mark.failure(26)
def test_paths_and_values_that_a_shell_or_a_library_would_mangle(stage: Stage) -> None:
    odd = replace(stage, directory=stage.directory / 'nemo_run\'s $HOME 100%j "é"')
    asked = odd.request(
        'echo "node: $FOO"', setup=("export FOO='a  b'",), sbatch={"comment": 'it\'s $x, "quoted" /nemo_run'}
    )
    job = odd.submit(asked)
    odd.wait(asked, job, "COMPLETED")
    assert "node: a  b" in log(asked, job)
    assert f" in {asked.stage_dir}\n" in log(asked, job)
    assert (asked.logs / f"{job}.batch.log").exists()
    shown = stage.slurm.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%k"]).stdout
    assert shown == 'it\'s $x, "quoted" /nemo_run\n'


def test_scripts_of_an_attempt_in_a_directory_of_their_own(stage: Stage) -> None:
    asked = stage.request("echo work")
    scripts = asked.stage_dir / "attempts" / "t1"
    scripts.mkdir(parents=True)
    for name in ("host.sh", "node.sh"):
        (asked.stage_dir / name).rename(scripts / name)
    asked = replace(asked, scripts_dir=scripts, link=2)
    job = stage.submit(asked)
    stage.wait(asked, job, "COMPLETED")
    assert sorted(os.listdir(scripts)) == ["host.sh", "job-2.sh", "node.sh"]


@pytest.mark.failure(24, 25)
def test_the_job_sees_neither_secrets_nor_leftovers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet,mask_cpu:0x1")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("MINE", "kept")
    asked = stage.request('echo "node: ${HF_TOKEN-} ${SBATCH_TIMELIMIT-} $MINE"; printenv SLURM_CPU_BIND; exit 0')
    job = Stage(stage.carrier, Gateway(stage.slurm.slurm_conf), stage.slurm, stage.directory).submit(asked)
    fields = stage.wait(asked, job, "COMPLETED")
    assert "node:   kept" in log(asked, job)
    assert "mask_cpu:0x1" not in log(asked, job)
    assert fields["TimeLimit"] == "00:05:00"


def test_both_ran_the_identical_body(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes of the work see differs between the executors in nothing but what belongs to the job."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    seen = {}
    for name in NAMES:
        pytest.importorskip(name)
        stage = Stage(carrier(name), Gateway(slurm.slurm_conf), slurm, tmp_path / name)
        asked = stage.request('env; echo "args: $0 $*"; pwd; umask; ulimit -a', nodes=1, cpus=2)
        job = stage.submit(asked)
        stage.wait(asked, job, "COMPLETED")
        text = log(asked, job).replace(str(asked.stage_dir), "STAGE").replace(asked.name, "NAME")
        seen[name] = {line for line in text.splitlines() if not line.startswith(_OF_THE_JOB)}
    # Each library exports words of its own, which nothing of ours reads; NeMo-Run's ending has a last word.
    ending = "job exited with code 0"
    assert seen["nemo_run"] - seen["submitit"] == {"PYTHONUNBUFFERED=1", "TORCHX_MAX_RETRIES=0", ending}
    assert seen["submitit"] - seen["nemo_run"] == {"SUBMITIT_EXECUTOR=slurm"}


_OF_THE_JOB = (
    "SLURM_JOBID=", "SLURM_JOB_ID=", "SLURM_STEP", "SLURM_JOB_NODELIST=", "SLURM_NODELIST=", "SLURM_TASK_PID=",
    "SLURM_SRUN_COMM_PORT=", "SLURM_LAUNCH_NODE_IPADDR=", "SLURMD_NODENAME=", "SLURM_TOPOLOGY_ADDR=", "SLURM_JOB_GPUS=",
    "HOSTNAME=", "SLURM_JOB_START_TIME=", "SLURM_JOB_END_TIME=", "host: ", "PYTEST_CURRENT_TEST=",
)  # fmt: skip
