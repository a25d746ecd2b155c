"""A submission and a job, cut off at every call that changes the disk: what is left can be read, says nothing that is
not so, and goes on to the same end.

The calls are recorded from the product at work (``recorder``); nothing here says by hand where it might be cut.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, seal
from jobs.core.paths import Workspace
from jobs.core.slurm_states import JobState
from jobs.core.spec import StageSpec
from jobs.training.saves import Saves
from launch.base.errors import InputError
from launch.inputs import toolkit
from launch.plan.model import Plan
from launch.runs import attempt_state
from launch.runs.rundir import Run
from launch.slurm.queue import QueueRow
from launch.status.assess import look
from launch.status.cluster import Queue
from launch.status.model import State
from launch.submit.submitter import Submitter
from tests.file_faults.job import WEIGHTS, carry, content, prepare, spec_of
from tests.file_faults.recorder import Crash, Disk, Loss, Recorder, crashes, recording, tree
from tests.support import made_runs

SAMPLE = 23
"""Of the states every so many-th is looked at in the quick test; the full one looks at all."""


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links."""

    def link(*names: object, **options: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)


# A job


def record_job(root: Path) -> Recorder:
    spec = spec_of(root)
    with recording(root) as found:
        prepare(spec)
        found.mark(("prepared",))
        assert carry(spec, 0, found.mark) == "done"
    return found


def check_job(spec: StageSpec, crash: Crash) -> None:
    store, marks = spec.store_paths, dict(mark for mark in crash.marks if len(mark) == 2)
    if store.seal.exists():  # the seal is the proof: where there is one, everything is there
        try:
            seal.verify(store.output, store.seal)
        except seal.SealBroken:
            pytest.fail(f"{crash}: a seal of something that is not there")
        assert content(store.output) == WEIGHTS, crash
    elif "saved" in marks:
        assert "done" not in marks, f"{crash}: what was called done is not sealed"
        saves = Saves(store, spec.fingerprint, None, lambda name, **facts: None)
        newest = saves.newest_valid()
        assert newest is not None, f"{crash}: every save is lost"
        assert newest[0] >= marks["saved"], f"{crash}: the newest valid save is older than the last one that was made"
    if ("prepared",) not in crash.marks:
        return
    decision = carry(spec, 1)
    assert decision in ("done", "SEALED"), f"{crash}: {decision}"
    assert content(store.output) == WEIGHTS, crash
    assert seal.verify(store.output, store.seal).fingerprint == spec.fingerprint
    assert carry(spec, 2) == "SEALED", crash


def test_the_model_of_the_disk_ends_where_the_disk_does(place: Path) -> None:
    """Else a call is missing from the record, and its crash states with it."""
    found = record_job(place)
    real = tree(place)
    disk = Disk(place)
    for call in found.calls:
        disk.play(call)
    disk.write_out(Loss.KILL)
    assert tree(place) == real
    assert len(found.calls) > 80


@pytest.mark.failure(30, 37)
def test_a_job_cut_off_at_a_sample_of_its_calls(place: Path) -> None:
    for crash in crashes(record_job(place), every=SAMPLE):
        check_job(spec_of(place), crash)


@pytest.mark.full
@pytest.mark.failure(30, 37)
def test_a_job_cut_off_at_every_call(place: Path) -> None:
    for crash in crashes(record_job(place)):
        check_job(spec_of(place), crash)


@pytest.mark.failure(30, 37)
def test_a_job_cut_off_where_there_are_no_hard_links(place: Path, without_links: None) -> None:
    for crash in crashes(record_job(place), every=SAMPLE, first=5):
        check_job(spec_of(place), crash)


@pytest.mark.failure(30)
@pytest.mark.parametrize("forgotten", ["fsync_directory", "flush"])
def test_what_is_not_flushed_is_found(place: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    """The other way round: with one kind of flush left out these tests fail."""
    with monkeypatch.context() as patch:
        patch.setattr(files, forgotten, lambda path: None)
        found = record_job(place)
    wrong = []
    for crash in crashes(found, every=SAMPLE // 4):
        try:
            check_job(spec_of(place), crash)
        except (Exception, pytest.fail.Exception):  # unreadable, or wrong
            wrong.append(crash)
            break
    assert wrong


# A submission


@dataclass
class Cluster:
    """Slurm as far as a submission sees it: it takes jobs, and shows those that it took."""

    jobs: dict[str, str] = field(default_factory=dict)
    edges: dict[str, str] = field(default_factory=dict)
    mark: Any = print

    def squeue(self) -> list[QueueRow]:
        return [
            QueueRow(job, name, JobState.PENDING, "", 1.0, None, None, 1, "", "batch", self.edges.get(job, ""))
            for name, job in self.jobs.items()
        ]

    def sbatch(self, script: Path, *, extra: object = ()) -> str:
        lines = [line.partition("=") for line in script.read_text().splitlines() if line.startswith("#SBATCH --")]
        said = {option.removeprefix("#SBATCH --"): value for option, _, value in lines}
        name = said["job-name"]
        assert name not in self.jobs, "submitted twice"
        self.jobs[name] = job = str(100 + len(self.jobs))
        self.edges[job] = said.get("dependency", "")
        self.mark(("accepted", name, job))
        return job

    def update_dependency(self, job: str, dependency: str) -> None:
        self.edges[job] = dependency


def bring_forward(run: Run, plan: Plan, cluster: Cluster) -> list[str | None]:
    return [step.job for step in Submitter(run, plan, run.profile(), cluster).advance()]  # type: ignore[arg-type]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(toolkit, "PACKAGES", ("sbatch_templates",))
    monkeypatch.setattr(attempt_state, "process_alive", lambda pid: False)  # whoever submitted has been cut off
    monkeypatch.setattr(made_runs, "BACK_END", "")


def record_submission(place: Path) -> tuple[Recorder, str]:
    cluster = Cluster()
    stages = (made_runs.stage("cpt"), made_runs.stage("sft", "cpt"))
    with recording(place) as found:
        cluster.mark = found.mark
        run = made_runs.make(place / "ws", *stages)
        found.mark(("made", run.id))
        bring_forward(run, run.plan(), cluster)
        found.mark(("submitted",))
    return found, run.id


def check_submission(place: Path, run_id: str, crash: Crash) -> None:
    run = Run(Workspace(place / "ws"), run_id)
    accepted = {mark[1]: mark[2] for mark in crash.marks if mark[0] == "accepted"}
    try:
        plan = run.plan()
    except InputError as error:  # cut off while it was made: said so, and nothing of it is in the queue
        assert "cut off before anything was submitted" in error.message, crash
        assert ("made", run_id) not in crash.marks, crash
        return
    journal = list(run.journal.read())
    announced = {name for entry in journal if entry["event"] == "intent" for name in entry["names"]}
    assert accepted.keys() <= announced, f"{crash}: a job that no journal explains"
    status = look(run, plan, Queue.of(Cluster(accepted).squeue()))
    assert not [one for one in status.stages if one.state is State.SEALED], crash
    cluster = Cluster(dict(accepted))
    jobs = bring_forward(run, plan, cluster)
    assert len(cluster.jobs) == 2, f"{crash}: {cluster.jobs}"
    assert sorted(jobs) == sorted(cluster.jobs.values()), crash
    assert accepted.items() <= cluster.jobs.items(), crash
    assert bring_forward(run, plan, cluster) == jobs, f"{crash}: twice changes nothing"


@pytest.mark.failure(12, 37)
def test_a_submission_cut_off_at_a_sample_of_its_calls(place: Path, quick: None) -> None:
    found, run_id = record_submission(place)
    assert [call.mark[0] for call in found.calls if call.mark].count("accepted") == 2
    for crash in crashes(found, every=2 * SAMPLE + 1):
        check_submission(place, run_id, crash)


@pytest.mark.full
@pytest.mark.failure(12, 37)
def test_a_submission_cut_off_at_every_call(place: Path, quick: None) -> None:
    found, run_id = record_submission(place)
    for crash in crashes(found):
        check_submission(place, run_id, crash)
