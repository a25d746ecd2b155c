"""status, logs and cancel on a real Slurm: a chain that is requeued, fails, is cancelled, adopted, and cut off."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.cli.main import main
from launch.render.executors import carrier
from launch.runs.attempt_state import QueueView
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.status import ask
from launch.status.assess import look
from launch.status.cluster import Queue
from launch.status.model import StageStatus, State
from launch.submit.submitter import Submitter
from tests.support.made_runs import make, stage, started, submitted
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm
pytest.importorskip("submitit")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path / "ws"))
    names = {"slurm", "slurm_accounting"} & set(request.fixturenames)
    cluster = request.getfixturevalue(names.pop())
    monkeypatch.setenv("OVERNIGHT_DEVCLUSTER", str(cluster.directory))


def gateway(slurm: Slurm) -> Gateway:
    return Gateway(slurm.slurm_conf)


def submit(run: Run, slurm: Slurm) -> dict[str, str]:
    """Job by stage."""
    carrier("submitit")
    steps = Submitter(run, run.plan(), run.profile(), gateway(slurm)).advance()
    return {step.stage: step.job for step in steps if step.job is not None}


def chain(tmp_path: Path, **cpt: Any) -> Run:
    stages = (
        stage("data", resumable=False, steps=1),
        stage("cpt", "data", **cpt),
        stage("sft", "cpt", fail_at=2),
        stage("dpo", "sft", resumable=False),
        stage("apart", steps=1),
    )
    return make(tmp_path / "ws", *stages, profile={"devcluster": "true"})


def status(run: Run) -> dict[str, StageStatus]:
    """By stage, as the command finds it."""
    found = ask.look(run, run.plan(), run.profile())
    return {one.stage: one for one in found.stages}


def wait_for(ask: Callable[[], bool], what: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end, what
        time.sleep(0.3)


def test_a_chain_from_waiting_over_a_requeue_to_a_failure(
    slurm: Slurm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = chain(tmp_path, steps=8, seconds=0.2, die_at=3)
    jobs = submit(run, slurm)
    assert main(["logs", run.id, "sft"]) == 0
    assert capfd.readouterr().err == "sft has no log yet: waits for cpt\n"
    assert main(["logs", run.id, "cpt", "-f"]) == 0
    shown = capfd.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("did step")] == [
        f"did step {n}" for n in range(1, 9)
    ]
    assert shown.err.count("==> job") == 2, "the second log is that of the restart"
    assert main(["logs", run.id, "sft", "--follow"]) == 1
    assert "sft: failed: an error in the code" in capfd.readouterr().err
    wait_for(lambda: status(run)["dpo"].state is State.SKIPPED, "Slurm cancels what can never start")
    found = status(run)
    assert {name: one.state for name, one in found.items()} == {
        "data": State.SEALED,
        "cpt": State.SEALED,
        "sft": State.FAILED,
        "dpo": State.SKIPPED,
        "apart": State.SEALED,
    }
    assert (found["cpt"].job, found["cpt"].continued) == (jobs["cpt"], 1)
    line = found["sft"].evidence
    assert re.fullmatch(r"ValueError: as the settings wanted it \(waiting\.py:\d+\)", line)
    assert main(["status"]) == 1
    assert main(["list"]) == 0
    assert "3/5  failed" in capfd.readouterr().out


@pytest.mark.failure(40)
def test_cancel_takes_what_is_below_and_nothing_comes_back(
    slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = chain(tmp_path, steps=900, seconds=0.1)
    jobs = submit(run, slurm)
    wait_for(lambda: status(run)["cpt"].step is not None, "a step of cpt")
    running = status(run)["cpt"]
    assert running.text.startswith("running, training ")
    assert running.nodes.startswith("node")
    assert main(["cancel", run.id[:4], "cpt", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["jobs"]) == {jobs[name] for name in ("cpt", "sft", "dpo")}
    assert shown["left"] == []
    # The job saved on the way out, and its EXIT trap asked Slurm for a requeue: that must not win.
    time.sleep(8)
    assert not {row.job_id for row in gateway(slurm).squeue() if not row.state.is_final} & set(shown["jobs"])
    found = status(run)
    assert [found[name].state for name in ("cpt", "sft", "dpo")] == [State.CANCELLED] * 3
    assert main(["cancel", run.id]) == 0
    assert "has no jobs in the queue" in capsys.readouterr().out
    assert main(["status", run.id]) == 0
    assert f"next: overnight resume {run.id}" in capsys.readouterr().out


def test_the_job_of_another_run_is_shown_and_spared(
    slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = chain(tmp_path, steps=900, seconds=0.1)
    jobs = submit(first, slurm)
    second = chain(tmp_path, steps=900, seconds=0.1)
    assert submit(second, slurm)["cpt"] == jobs["cpt"]
    wait_for(lambda: status(second)["cpt"].step is not None, "a step of cpt, seen from the other run")
    assert status(second)["cpt"].of_run == first.id
    assert main(["cancel", second.id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["jobs"] == {}
    assert shown["spared"]["cpt"] == first.id
    assert main(["cancel", second.id, "--adopted", "--json"]) == 0
    assert jobs["cpt"] in json.loads(capsys.readouterr().out)["jobs"]
    wait_for(lambda: status(second)["cpt"].state is State.CANCELLED, "cpt is cancelled")


@pytest.mark.failure(18)
def test_a_dead_controller_is_no_answer(slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = chain(tmp_path, steps=900, seconds=0.1)
    submit(run, slurm)
    wait_for(lambda: status(run)["cpt"].step is not None, "a step of cpt")
    time.sleep(6)  # a controller killed within 5 s, before it has saved its state, forgets the jobs
    slurm.cluster.kill("slurmctld")
    try:
        assert main(["status", run.id]) == 4
        text = capsys.readouterr().out
        assert "The cluster does not answer (it last answered at" in text
        assert "at the last report: running, training" in text
        assert "lost" not in text
        assert "failed" not in text.partition("\n\n")[2].partition("What follows")[2]
    finally:
        slurm.cluster.start("slurmctld")
    wait_for(lambda: status(run)["cpt"].state is State.RUNNING, "the controller is back and so is the job")


@pytest.mark.failure(20)
def test_accounting_tells_the_end_that_the_queue_forgot(slurm_accounting: Slurm, tmp_path: Path) -> None:
    run = chain(tmp_path)
    attempt = submitted(run, "cpt")
    job = slurm_accounting.sbatch("exit 3", f"--job-name={attempt.job_names[0]}")
    started(run, "cpt", job)
    slurm_accounting.wait_for_state(job, "FAILED")
    calls = []

    def sacct(since: float) -> Any:
        calls.append(since)
        return gateway(slurm_accounting).sacct(since)

    def found() -> StageStatus:
        return look(run, run.plan(), Queue(QueueView(()), time.time() + 1), sacct, only={"cpt"}).stages[0]

    wait_for(lambda: found().state is State.FAILED, "the accounting catches up")
    assert found().text == "failed: ended with an error"
    assert found().nodes.startswith("node")
    assert calls[0] < attempt.time
