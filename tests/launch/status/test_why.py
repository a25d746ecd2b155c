"""What ``why`` says of a stage in each state that it can be in, from what a run leaves behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobs.core import claim, files
from jobs.core.progress import ProgressWriter
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome
from launch.base.errors import ClusterUnreachable, InputError
from launch.runs import rundir
from launch.runs.attempt_state import QueueView
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.queue import AccountRow, QueueRow
from launch.status import advice, ask, why
from launch.status.assess import look
from launch.status.cluster import Queue
from launch.status.model import RunStatus, StageStatus, State
from launch.status.why import Why
from tests.support.made_runs import make, row, said, sealed, stage, started, store_of, submitted

SILENT = ClusterUnreachable("squeue failed: Unable to contact slurm controller", command=["squeue"], since=9)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return make(tmp_path / "ws", stage("cpt", steps=60), stage("sft", "cpt"))


def told(run: Run, *rows: QueueRow, queue: Queue | None = None) -> Why:
    """Of the first stage."""
    status = look(run, run.plan(), queue or Queue(QueueView(rows), time.time() + 1))
    return why.explain(run, run.plan(), run.profile(), status)[0]


def text_of(found: Why) -> str:
    return "\n".join(why.lines(found))


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_words_and_its_next_command(run: Run, state: State) -> None:
    """Where the user has to do something, it is named; otherwise nothing is."""
    shown = StageStatus("cpt", state, f"these words for {state}", job="11")
    (found,) = why.explain(run, run.plan(), run.profile(), RunStatus((shown,)), "cpt")
    assert found.state == state.value
    assert text_of(found).startswith(f"cpt: these words for {state}")
    if state.is_over:
        assert found.next == f"overnight resume {run.id}"
        assert not found.is_calm
    elif state is not State.UNKNOWN:
        assert found.is_calm
        assert "resume" not in found.next
    assert why.as_json(run, RunStatus((shown,)), [found])["stages"][0]["state"] == state.value


def test_failed_shows_class_line_place_step_save_and_budget(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    started(run, "cpt", "11", restart=1)
    ProgressWriter(run.paths.stage("cpt").progress).report(7, 60, loss=2.0)
    store_of(run, "cpt").save(6).mkdir(parents=True)
    files.write_json(store_of(run, "cpt").save_seal(6), {})
    said(run, "cpt", "11", Outcome.RETRY, FailureClass.MISSING_GPUS, "No CUDA GPUs", nodes=("node3",))
    said(
        run,
        "cpt",
        "11",
        Outcome.FAIL,
        FailureClass.GPU_MEMORY,
        "CUDA out of memory",
        restart=1,
        host="node4",
        source="/logs/11_1.log:40",
        step=6,
    )
    files.append_json_line(run.paths.stage("cpt").events, {"time": 1.0, "event": "avoids", "nodes": ["node3"]})
    found = told(run, row(run, "cpt", "11", JobState.FAILED))
    assert (found.state, found.failure, found.reported, found.saved) == ("failed", "gpu_out_of_memory", 7, 6)
    assert (found.starts, found.retries_used, found.retries_allowed) == (2, 1, 0)
    text = text_of(found)
    for part in (
        "gpu_out_of_memory (ran out of GPU memory)",
        "shown by  CUDA out of memory",
        "in        /logs/11_1.log:40",
        "job       11, restart 1 on node4",
        "reached   step 7; saved: step 6",
        "excludes node3",
        "halve micro_batch_size",
        "; then: overnight submit ",
    ):
        assert part in text, text


def test_waiting_to_go_on_shows_why_the_start_before_ended(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.RETRY, FailureClass.NODE_FAILURE, "node2 went down", nodes=("node2",))
    found = told(run, row(run, "cpt", "11", JobState.PENDING, "BeginTime"))
    assert (found.state, found.failure, found.next) == ("waiting", "node_failure", "")
    assert not found.is_calm, "a retry is worth a word"
    assert "class     its start before node_failure (its node failed)" in text_of(found)


def test_running_and_sealed_need_nothing(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    found = told(run, row(run, "cpt", "11", JobState.RUNNING, start=time.time()))
    assert found.is_calm
    assert found.next == f"overnight logs {run.id} cpt -f"
    sealed(run, "cpt")
    found = told(run)
    assert (found.state, found.next, found.is_calm) == ("sealed", "", True)


def test_lost_is_said_with_what_neither_source_knows(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    found = told(run)
    assert (found.state, found.job) == ("lost", "11")
    assert "neither the queue nor the accounting knows its job" in text_of(found)
    assert found.next == f"overnight resume {run.id}"


def test_blocked_and_cancelled_and_superseded(run: Run) -> None:
    attempt = submitted(run, "cpt", "11")
    blocked = told(run, row(run, "cpt", "11", JobState.PENDING, "DependencyNeverSatisfied"))
    assert (blocked.state, blocked.next) == ("blocked", f"overnight resume {run.id}")
    cancelled = told(run, row(run, "cpt", "11", JobState.CANCELLED))
    assert cancelled.state == "cancelled"
    claim.supersede(store_of(run, "cpt"), attempt.token, by="zzzzz")
    assert "given up by run zzzzz" in text_of(told(run))


def test_refused_shows_the_words_of_slurm(run: Run) -> None:
    attempt = submitted(run, "cpt")
    claim.supersede(store_of(run, "cpt"), attempt.token, by="refused")
    run.journal.write(Event.REFUSED, stage="cpt", stderr="sbatch: error: Invalid account")
    found = told(run)
    assert (found.state, found.evidence) == ("failed", "sbatch: error: Invalid account")


def test_a_refused_requeue_is_the_reason(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    said(run, "cpt", "11", Outcome.RETRY, FailureClass.HANG, "no step for 600 s")
    line = {"time": time.time(), "event": "not_requeued", "job": "11", "answer": "Access/permission denied"}
    files.append_json_line(run.paths.stage("cpt").events, line)
    found = told(run, row(run, "cpt", "11", JobState.FAILED))
    assert (
        found.evidence == "Slurm refused to requeue it: Access/permission denied (it ended because: no step for 600 s)"
    )


def test_a_silent_cluster_is_asked_again_later_and_no_resume_is_advised(run: Run) -> None:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    found = told(run, queue=Queue.silent(SILENT))
    assert found.state == "unknown"
    assert found.next == f"overnight why {run.id} cpt, when the cluster answers again"


def test_what_is_sealed_is_known_without_the_cluster(run: Run) -> None:
    for name, job in (("cpt", "11"), ("sft", "12")):
        submitted(run, name, job)
        started(run, name, job)
        sealed(run, name)
    status = look(run, run.plan(), Queue.silent(SILENT))
    assert status.is_done
    assert status.unreachable
    assert ask.exit_code(status) == 0
    assert advice.of_run(run, status) == "nothing: every stage is sealed"


def test_a_workspace_without_runs_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs yet"):
        rundir.find("abcde", tmp_path)


# Before the work's own code


@pytest.mark.failure(9)
@pytest.mark.parametrize(
    ("printed", "reason", "failure", "line"),
    [
        ("/w/job.sh: line 9: /x/host.sh: No such file or directory\novernight: host.sh cannot be read on n1: nothing is run",
         "NonZeroExitCode", FailureClass.ENVIRONMENT, "/w/job.sh: line 9: /x/host.sh: No such file or directory"),
        ("", "RaisedSignal:53(Real-time_signal_19)", FailureClass.ENVIRONMENT, "is the workspace mounted there?"),
        ("some words of the site\n\n", "NonZeroExitCode", FailureClass.KILLED, "some words of the site"),
        ("some words of the site\n\n", "JobLaunchFailure", FailureClass.KILLED, "some words of the site"),
    ],
)  # fmt: skip
def test_a_job_that_died_before_its_own_code_has_class_line_and_next_command(
    run: Run, printed: str, reason: str, failure: FailureClass, line: str
) -> None:
    submitted(run, "cpt", "11")
    log = run.paths.stage("cpt").logs / "11.batch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(printed)
    found = told(run, row(run, "cpt", "11", JobState.FAILED, reason=reason))
    assert found.failure == failure.value
    assert line in found.evidence
    assert found.source == (f"{log}:1" if printed else "")
    assert f"class     {failure.value} (" in text_of(found)
    assert found.next.endswith(
        f"overnight resume {run.id}" if failure is FailureClass.KILLED else f"--workspace {run.workspace.root}"
    )


@pytest.mark.failure(9, 20)
def test_the_exit_code_of_the_accounting_counts_where_the_queue_has_forgotten_the_job(run: Run) -> None:
    (name,) = submitted(run, "cpt", "11").job_names
    ended = AccountRow("11", name, JobState.FAILED, "0:53", None, 1.0, 2.0, "n1")
    status = look(run, run.plan(), Queue(QueueView(()), time.time() + 1), lambda since: [ended])
    (found,) = why.explain(run, run.plan(), run.profile(), status, "cpt")
    assert found.failure == FailureClass.ENVIRONMENT.value
    assert found.evidence.startswith("sacct: job 11 FAILED, exit code 0:53: the node could not open")
    assert found.nodes == ("n1",)
    assert status.stages[0].text == "failed: its environment could not be set up on the node before its work began"
