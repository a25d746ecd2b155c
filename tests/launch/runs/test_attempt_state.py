"""What became of an attempt, from its files and the queue's answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.core import attempts, claim
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths
from jobs.core.slurm_states import JobState
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptStatus, QueueView
from launch.slurm.queue import QueueRow
from launch.status import plan as plan_states
from launch.status import runs
from tests.support import made_runs

NOBODY = 2**22 + 1
"""No process has this number."""


@pytest.fixture
def store(tmp_path: Path) -> StorePaths:
    (tmp_path / "store" / "checkpoint-0").mkdir(parents=True)
    return StorePaths(tmp_path / "store" / "checkpoint-0")


def opened(store: StorePaths, links: int = 1, **facts: Any) -> Attempt:
    names = tuple(f"on-run-cpt-aaaaaa{f'-{link}' if link else ''}" for link in range(links))
    stage_dir = str(store.root.parent.parent / "stage")
    attempt = Attempt(1, "aaaaaa", "run", "cpt", stage_dir, "slurm", names, **{"pid": NOBODY, **facts})
    assert attempts.open_next(store, attempt)
    return attempt


def row(name: str, job: str, state: JobState) -> QueueRow:
    return QueueRow(job, name, state, "None", None, None, None, 1, "", "batch", "")


def started(store: StorePaths, job: str, link: int = 0) -> None:
    assert claim.take(store, Claim("aaaaaa", link, 0, job, "node1", time.time())) is None


def test_of_two_copies_the_living_one_counts(store: StorePaths) -> None:
    attempt = opened(store)
    attempts.record_job(store, attempt, 0, "7")
    (name,) = attempt.job_names
    view = QueueView([row(name, "7", JobState.CANCELLED), row(name, "8", JobState.RUNNING)])
    found = attempt_state.standing(store, attempt, view)
    assert (found.status, found.jobs) == (AttemptStatus.LIVE, {0: "8"})
    both = QueueView([row(name, "7", JobState.PENDING), row(name, "8", JobState.RUNNING)])
    assert attempt_state.standing(store, attempt, both).jobs == {0: "7"}
    assert [row.job_id for row in both.alive(attempt.job_names)] == ["7", "8"]


@pytest.mark.failure(19)
def test_an_id_that_is_used_again_is_another_job(store: StorePaths) -> None:
    attempt = opened(store)
    attempts.record_job(store, attempt, 0, "7")
    found = attempt_state.standing(store, attempt, QueueView([row("somebody-elses", "7", JobState.RUNNING)]))
    assert found.status is AttemptStatus.NEVER_STARTED
    started(store, "7")
    assert attempt_state.standing(store, attempt, QueueView([])).status is AttemptStatus.ENDED


def test_a_given_up_attempt_is_not_live_whatever_the_queue_says(store: StorePaths) -> None:
    attempt = opened(store, pid=os.getpid())
    assert claim.supersede(store, "aaaaaa", by="other") is None
    view = QueueView([row(attempt.job_names[0], "7", JobState.PENDING)])
    assert attempt_state.standing(store, attempt, view).status is AttemptStatus.NEVER_STARTED


def test_giving_up_is_completed_where_it_was_cut_off(store: StorePaths) -> None:
    opened(store, links=3)
    assert claim.supersede(store, "aaaaaa", by="other", links=1) is None
    assert claim.supersede(store, "aaaaaa", by="other", links=3) is None
    late = claim.take(store, Claim("aaaaaa", 2, 0, "9", "node1", time.time()))
    assert late is not None
    assert late.job == claim.SUPERSEDED


def test_a_chain_of_jobs_is_on_its_way_until_its_last_link_is_known(store: StorePaths) -> None:
    attempt = opened(store, links=2, pid=os.getpid())
    first, second = attempt.job_names
    rows = [row(first, "7", JobState.PENDING)]
    assert attempt_state.standing(store, attempt, QueueView(rows)).status is AttemptStatus.IN_FLIGHT
    started(store, "7")
    assert attempt_state.standing(store, attempt, QueueView([])).status is AttemptStatus.IN_FLIGHT, (
        "its first link has ended already"
    )
    whole = QueueView([*rows, row(second, "8", JobState.PENDING)])
    assert attempt_state.standing(store, attempt, whole).status is AttemptStatus.LIVE
    later = attempt.time + attempt_state.SUBMITTING_SECONDS + 1
    assert attempt_state.standing(store, attempt, QueueView(rows), now=later).status is AttemptStatus.LIVE


def test_who_may_still_be_submitting(store: StorePaths) -> None:
    elsewhere = opened(store, host="login2")
    nothing = QueueView([])
    assert attempt_state.standing(store, elsewhere, nothing).status is AttemptStatus.IN_FLIGHT
    later = elsewhere.time + attempt_state.SUBMITTING_SECONDS + 1
    assert attempt_state.standing(store, elsewhere, nothing, now=later).status is AttemptStatus.NEVER_STARTED


def test_an_sbatch_that_outlived_its_overnight(store: StorePaths) -> None:
    attempt = opened(store, host=socket.gethostname())
    nothing = QueueView([])
    assert attempt_state.standing(store, attempt, nothing).status is AttemptStatus.NEVER_STARTED
    script = StagePaths(Path(attempt.stage_dir)).scripts("aaaaaa").job(0)
    sbatch = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "sbatch", str(script)])
    try:
        while not Path(f"/proc/{sbatch.pid}/cmdline").read_bytes():  # a new program has no words for its first instant
            assert sbatch.poll() is None
        assert attempt_state.standing(store, attempt, nothing).status is AttemptStatus.IN_FLIGHT
    finally:
        sbatch.kill()
        sbatch.wait()


def test_what_was_read_before_the_queue_was_asked_decides(store: StorePaths) -> None:
    """Accepted, recorded and started after that: neither ended nor gone, as the files of now would say."""
    attempt = opened(store, pid=os.getpid())
    claims, known = claim.of_attempt(store, "aaaaaa"), attempts.job_ids(store, attempt)
    answer = QueueView([])
    attempts.record_job(store, attempt, 0, "7")
    started(store, "7")
    assert attempt_state.standing(store, attempt, answer, claims=claims, known=known).status is AttemptStatus.IN_FLIGHT
    assert attempt_state.standing(store, attempt, answer).status is AttemptStatus.ENDED


def test_a_refusal_is_told_by_list_and_plan_as_by_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = made_runs.make(tmp_path / "ws", made_runs.stage("cpt"))
    attempt = made_runs.submitted(run, "cpt")
    claim.supersede(made_runs.store_of(run, "cpt"), attempt.token, by=attempt_state.REFUSED)
    assert runs.overview(run).state == "failed"
    assert plan_states.states(run.plan(), run.workspace)["cpt"] == f"new (run {run.id}: refused by Slurm)"
