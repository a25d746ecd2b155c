"""What ``status`` concludes from real run directories and answers of the queue, and what it never concludes."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from jobs.core import claim, files
from jobs.core.paths import StagePaths
from jobs.core.progress import ProgressWriter
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome
from launch.base.errors import ClusterUnreachable
from launch.cli.main import main
from launch.runs.attempt_state import QueueView
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.queue import AccountRow, QueueRow
from launch.status import advice, progress
from launch.status import text as show_status
from launch.status.assess import look
from launch.status.cluster import Queue
from launch.status.model import RunStatus, StageStatus, State
from launch.submit import cancel
from tests.support.made_runs import make, row, said, sealed, stage, started, store_of, submitted

SILENT = ClusterUnreachable("squeue failed: Unable to contact slurm controller", command=["squeue"], since=9)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "ws", stage("cpt", steps=60), stage("sft", "cpt"), stage("dpo", "sft"))


def judged(run: Run, *rows: QueueRow, accounting: Iterable[AccountRow] | None = None) -> RunStatus:
    calls = []

    def sacct(since: float) -> list[AccountRow] | None:
        calls.append(since)
        return None if accounting is None else list(accounting)

    status = look(run, run.plan(), Queue(QueueView(rows), time.time() + 1), sacct)
    assert len(calls) <= 1
    return status


def first(run: Run, *rows: QueueRow, accounting: Iterable[AccountRow] | None = None) -> StageStatus:
    return judged(run, *rows, accounting=accounting).stages[0]


def accounted(
    run: Run, job: str, state: JobState, name: str = "on-{run}-cpt-aaaaaa", start: float = 20.0
) -> AccountRow:
    return AccountRow(job, name.format(run=run.id), state, "0:0", 10.0, start, start + 65, "node7")


def test_nothing_submitted_yet(run: Run) -> None:
    status = judged(run)
    assert [found.state for found in status.stages] == [State.NOT_SUBMITTED] * 3
    assert advice.of_run(run, status) == f"overnight resume {run.id}"


def test_running_says_step_loss_and_time_left(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    writer = ProgressWriter(run.paths.stage("cpt").progress)
    for step in (1, 2, 3):
        writer.report(step, 60, "training", loss=3.0 - step / 10)
        time.sleep(0.02)
    found = first(run, row(run, "cpt", "11", JobState.RUNNING, start=time.time() - 90, nodes="node[1-2]"))
    assert found.state is State.RUNNING
    assert (found.job, found.nodes, found.step, found.total, found.loss) == ("11", "node[1-2]", 3, 60, 2.7)
    assert found.text.startswith("running, training 3 of 60, loss 2.7, 0:0")
    assert found.elapsed == pytest.approx(90, abs=2)
    assert found.left == pytest.approx(57 * 0.02, abs=2)


def test_a_restart_does_not_show_the_steps_of_the_start_before(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    ProgressWriter(run.paths.stage("cpt").progress).report(40, 60, "training", loss=1.0)
    started(run, "cpt", "11", restart=1)
    waits = first(run, row(run, "cpt", "11", JobState.PENDING, "BeginTime", start=time.time() + 600))
    assert waits.state is State.WAITING
    assert "waits to resume after step 40 of 60" in waits.text
    assert "Slurm expects to start it about" in waits.text
    assert waits.starts_at is not None
    again = first(run, row(run, "cpt", "11", JobState.RUNNING, start=time.time() + 0.1))
    assert again.text == "running, no step reported yet"
    assert again.continued == 1


@pytest.mark.failure(42)
def test_the_nodes_that_a_stage_keeps_off_are_shown(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    started(run, "cpt", "11", restart=1)
    run.paths.stage("cpt").avoid("11").write_text("node3,node7\n")
    status = judged(run, row(run, "cpt", "11", JobState.RUNNING, start=time.time()))
    assert status.stages[0].avoids == ("node3", "node7")
    assert "; excludes node3, node7" in "\n".join(show_status.lines(run, run.plan(), "site", status))


@pytest.mark.failure(43)
def test_a_stage_that_is_silent_for_long_says_so(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    line = {"time": time.time() - 3600, "step": 5, "total": 60, "metrics": {}}
    run.paths.stage("cpt").progress.write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = first(run, row(run, "cpt", "11", JobState.RUNNING, start=time.time() - 7200))
    assert "nothing new for 1:00:00" in found.text


def test_waiting_names_the_stages_that_are_not_sealed(run: Run) -> None:
    submitted(run, "cpt", "11")
    submitted(run, "sft", "12")
    status = judged(
        run, row(run, "cpt", "11", JobState.PENDING, "Priority"), row(run, "sft", "12", JobState.PENDING, "Dependency")
    )
    assert [found.text for found in status.stages[:2]] == ["jobs of higher priority are ahead of it", "waits for cpt"]
    assert status.stages[2].state is State.NOT_SUBMITTED


@pytest.mark.parametrize(
    "state", [JobState.SUSPENDED, JobState.CONFIGURING, JobState.COMPLETING, JobState.STAGE_OUT, JobState.STOPPED]
)
@pytest.mark.failure(21)
def test_what_holds_nodes_is_not_over(run: Run, state: JobState) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    assert first(run, row(run, "cpt", "11", state, start=time.time())).state is State.RUNNING


@pytest.mark.parametrize("state", [JobState.REQUEUE_HOLD, JobState.SPECIAL_EXIT, JobState.REQUEUED])
@pytest.mark.failure(21)
def test_what_is_held_is_not_over(run: Run, state: JobState) -> None:
    submitted(run, "cpt", "11")
    found = first(run, row(run, "cpt", "11", state, "JobHeldUser"))
    assert (found.state, found.text) == (State.WAITING, "held by its owner; release it with: scontrol release 11")


def test_a_state_that_we_do_not_know_is_neither_running_nor_over(run: Run) -> None:
    submitted(run, "cpt", "11")
    found = first(run, row(run, "cpt", "11", JobState.UNKNOWN))
    assert found.state is State.UNKNOWN
    assert not found.state.is_over


def test_failed_says_class_and_evidence_and_what_is_below_did_not_run(run: Run) -> None:
    for name, job in (("cpt", "11"), ("sft", "12"), ("dpo", "13")):
        submitted(run, name, job)
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.FAIL, FailureClass.BROKEN_INPUT, "/x/model.safetensors: has 3 bytes, sealed with 9")
    # 12 was cancelled by Slurm (kill-on-invalid-dep) and is remembered; 13 is purged from the queue already.
    status = judged(
        run, row(run, "cpt", "11", JobState.FAILED, "NonZeroExitCode"), row(run, "sft", "12", JobState.CANCELLED)
    )
    assert [found.state for found in status.stages] == [State.FAILED, State.SKIPPED, State.SKIPPED]
    assert status.stages[0].failure == "broken_input"
    text = "\n".join(show_status.lines(run, run.plan(), "site", status))
    assert "failed: an input is damaged" in text
    assert "  /x/model.safetensors: has 3 bytes, sealed with 9" in text
    assert "did not run: cpt has not succeeded" in text
    assert text.endswith(f"next: overnight resume {run.id}")


@pytest.mark.failure(18)
def test_absence_is_lost_never_success(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    found = first(run)
    assert found.state is State.LOST
    assert found.text == "ended without a verdict; neither the queue nor the accounting knows its job"


@pytest.mark.failure(1, 2)
def test_completed_without_a_seal_is_lost(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    found = first(run, row(run, "cpt", "11", JobState.COMPLETED))
    assert (found.state, found.text) == (State.LOST, "lost: Slurm reports COMPLETED, but there is no seal")


@pytest.mark.failure(9)
def test_done_without_a_seal_is_lost(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.DONE, FailureClass.NONE)
    assert first(run).state is State.LOST


@pytest.mark.failure(19)
def test_accounting_tells_what_the_queue_forgot_and_only_of_our_job(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    other = accounted(run, "11", JobState.COMPLETED, name="somebody-else", start=99.0)  # the id was used again
    earlier = accounted(run, "11", JobState.PREEMPTED, start=12.0)
    found = first(run, accounting=[other, accounted(run, "11", JobState.TIMEOUT), earlier])
    assert (found.state, found.text) == (State.FAILED, "failed: reached its time limit")
    assert (found.elapsed, found.nodes) == (65.0, "node7")


@pytest.mark.failure(20)
def test_accounting_that_says_requeued_for_ever_proves_nothing(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    assert first(run, accounting=[accounted(run, "11", JobState.REQUEUED)]).state is State.LOST


def test_accounting_is_not_asked_when_the_queue_says_enough(run: Run) -> None:
    submitted(run, "cpt", "11")

    def never(since: float) -> list[AccountRow]:
        raise AssertionError("sacct was called")

    queue = Queue(QueueView([row(run, "cpt", "11", JobState.PENDING)]), time.time())
    assert look(run, run.plan(), queue, never).stages[0].state is State.WAITING


def test_cancelled_by_us_and_by_hand(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.CONTINUE, FailureClass.TIME_LIMIT, step=7)
    by_hand = first(run, row(run, "cpt", "11", JobState.CANCELLED))
    assert (by_hand.state, by_hand.text) == (State.CANCELLED, "cancelled, saved at step 7")
    run.journal.write(Event.CANCELLED, stages=["cpt"], jobs=["11"])
    assert first(run).state is State.CANCELLED
    said(run, "cpt", "11", Outcome.FAIL, FailureClass.KILLED, "exit code 143")
    assert first(run).state is State.CANCELLED
    said(run, "cpt", "11", Outcome.FAIL, FailureClass.OUT_OF_MEMORY, "while it was being cancelled")
    assert first(run).state is State.FAILED


def test_the_last_link_of_a_chain_decides(run: Run) -> None:
    submitted(run, "cpt", "11", "12", links=2)
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.CONTINUE, FailureClass.TIME_LIMIT, step=7)
    waits = row(run, "cpt", "12", JobState.PENDING, "Priority", link=1)
    found = first(run, row(run, "cpt", "11", JobState.FAILED), waits)
    assert (found.state, found.job) == (State.WAITING, "12")
    found = first(run, row(run, "cpt", "11", JobState.FAILED), row(run, "cpt", "12", JobState.CANCELLED, link=1))
    assert (found.state, found.job) == (State.CANCELLED, "12")


def test_of_a_sealed_chain_of_jobs_the_one_that_sealed_is_named(run: Run) -> None:
    submitted(run, "cpt", "11", "12", "13", links=3)
    started(run, "cpt", "11")
    started(run, "cpt", "12", link=1)
    sealed(run, "cpt", job="12")
    found = first(run)
    assert (found.job, found.continued) == ("12", 1)


def test_a_silent_cluster_is_said_and_nothing_is_concluded_from_it(run: Run) -> None:
    sealed(run, "cpt")
    submitted(run, "sft", "12")
    started(run, "sft", "12")
    ProgressWriter(run.paths.stage("sft").progress).report(2, 3, "training", loss=1.5)
    response = time.time() - 120
    run.paths.stage("sft").deadline("12", 0).write_text("0")
    os.utime(run.paths.stage("sft").deadline("12", 0), (response, response))
    submitted(run, "dpo", "13")
    status = look(run, run.plan(), Queue.silent(SILENT))
    assert [found.state for found in status.stages] == [State.SEALED, State.UNKNOWN, State.UNKNOWN]
    assert "at the last report: running, training 2 of 3, loss 1.5" in status.stages[1].text
    text = "\n".join(show_status.lines(run, run.plan(), "site", status))
    assert "The cluster does not answer (it last answered at" in text
    assert "squeue: no answer for 9 s" in text
    assert "resume" not in text


def test_a_job_that_said_it_failed_has_failed_also_while_the_cluster_is_silent(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.FAIL, FailureClass.STORAGE_FULL, "No space left on device")
    assert look(run, run.plan(), Queue.silent(SILENT)).stages[0].state is State.FAILED


def test_refused_and_superseded(run: Run) -> None:
    attempt = submitted(run, "cpt")
    claim.supersede(store_of(run, "cpt"), attempt.token, by="refused")
    run.journal.write(Event.REFUSED, stage="cpt", stderr="sbatch: error: Invalid account")
    found = first(run)
    assert (found.state, found.evidence) == (State.FAILED, "sbatch: error: Invalid account")
    other = submitted(run, "sft")
    claim.supersede(store_of(run, "sft"), other.token, by="zzzzz")
    assert judged(run).stages[1].text == "given up by run zzzzz before it started"


def test_submission_at_work_and_submission_cut_off(run: Run) -> None:
    submitted(run, "cpt")  # by this process, which is alive
    submitted(run, "sft", pid=2**22 + 1)
    status = judged(run)
    assert status.stages[0].state is State.SUBMITTING
    assert "cut off" in status.stages[1].text


def test_a_job_submitted_after_the_queue_was_asked_is_not_lost(run: Run) -> None:
    queue = Queue(QueueView(()), time.time() - 1)
    submitted(run, "cpt", "11")
    assert look(run, run.plan(), queue).stages[0].state is State.SUBMITTING


def test_a_stage_of_another_run_shows_that_runs_progress(run: Run, tmp_path: Path) -> None:
    other = make(tmp_path / "ws", stage("cpt", steps=60))
    submitted(other, "cpt", "11")
    started(other, "cpt", "11")
    ProgressWriter(other.paths.stage("cpt").progress).report(30, 60, "training", loss=2.0)
    found = first(run, row(other, "cpt", "11", JobState.RUNNING, start=time.time() - 60))
    assert (found.step, found.of_run) == (30, other.id)
    assert f"(in run {other.id})" in "\n".join(show_status.lines(run, run.plan(), "site", judged(run)))


def test_a_stage_that_resume_adopted_from_its_own_run_is_its_own(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    run.journal.write(Event.ADOPTED, stage="cpt", job="11", of_run=run.id)
    sealed(run, "cpt")
    found = first(run)
    assert (found.state, found.job, found.of_run) == (State.SEALED, "11", "")
    assert found.elapsed == pytest.approx(5, abs=1)


@pytest.mark.failure(5)
def test_blocked_by_a_dependency_that_never_comes(run: Run) -> None:
    submitted(run, "cpt", "11")
    found = first(run, row(run, "cpt", "11", JobState.PENDING, "DependencyNeverSatisfied"))
    assert found.state is State.BLOCKED
    assert found.text.startswith("will never start")


def test_a_local_run_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "ws", stage("cpt", executor="local"), profile={"executor": "local"})
    submitted(run, "cpt", "local-gone-1", carrier="local", pid=2**22 + 1)
    store_of(run, "cpt").attempt_jobs(1).write_text(json.dumps({"0": f"local-{os.uname().nodename}-{2**22 + 1}"}))
    assert main(["status", run.id[:3], "--workspace", str(tmp_path / "ws"), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["stages"][0]["text"] == "was cut off before its work began"
    assert shown["next"] == f"overnight resume {run.id}"


def test_exit_codes_and_the_end_of_a_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "ws", stage("cpt", executor="local"), profile={"executor": "local"})
    arguments = ["status", "--workspace", str(tmp_path / "ws")]
    submitted(run, "cpt", f"local-{os.uname().nodename}-{os.getpid()}", carrier="local")
    assert main(arguments) == 0
    assert "running" in capsys.readouterr().out
    started(run, "cpt", f"local-{os.uname().nodename}-{os.getpid()}")
    sealed(run, "cpt")
    assert main(arguments) == 0
    assert "next: nothing: every stage is sealed" in capsys.readouterr().out


@pytest.mark.failure(35)
def test_a_stage_of_another_user_says_whose_it_is_and_is_not_called_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two users in one workspace: squeue shows each of them only their own jobs."""
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    assert first(run).state is State.LOST
    mine, name = os.geteuid(), pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    found = first(run)
    assert found.state is State.UNKNOWN
    assert found.owner == name

    class Gateway:
        def squeue(self) -> list[QueueRow]:
            return []

    cancelled = cancel.on_slurm(run, run.plan(), Gateway(), {"cpt", "sft"})  # type: ignore[arg-type]
    assert cancelled.theirs == {"cpt": name}


def test_elapsed_is_the_work_and_not_the_time_between_starts(tmp_path: Path) -> None:
    """A job that was requeued for an hour has not computed for it; what is made again is not as old as its first seal."""
    stage = StagePaths(tmp_path)
    events = stage.events

    def note(event: str, job: str, restart: int, at: float) -> str:
        return json.dumps({"event": event, "job": job, "restart": restart, "time": at, "attempt": "a"}) + "\n"

    first = note("start", "7", 0, 100) + note("verdict", "7", 0, 160)  # a time limit
    second = note("start", "7", 1, 3760) + note("sealed", "7", 1, 3790) + note("verdict", "7", 1, 3791)
    events.write_text(first + second)
    assert progress.worked(stage).seconds == 60 + 31
    assert len(progress.worked(stage).starts) == 2
    again = note("start", "9", 0, 9000) + note("sealed", "9", 0, 9009)
    events.write_text(first + second + again)
    made = progress.worked(stage)
    assert (made.seconds, len(made.starts), made.end["job"]) == (9, 1, "9")
    killed = note("start", "7", 0, 100) + note("start", "7", 1, 180) + note("sealed", "7", 1, 200)
    events.write_text(killed)
    assert progress.worked(stage).seconds == 80 + 20
    # It was killed without a word: its last sign of life, and not the hour in the queue behind it.
    files.append_json_line(stage.progress, {"time": 130.0, "step": 3, "total": 9, "restart": 0, "metrics": {}})
    assert progress.worked(stage).seconds == 30 + 20
    saved = note("save_took", "7", 0, 140).replace("}", ', "sealed": true}')
    events.write_text(killed.replace(note("start", "7", 1, 180), saved + note("start", "7", 1, 180)))
    assert progress.worked(stage).seconds == 40 + 20
    events.write_text("")
    assert progress.worked(stage).seconds is None
