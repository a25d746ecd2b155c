"""``list``, ``status``, ``why`` and ``doctor`` tell one story: asked of the same files and queue, they agree."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.core import claim
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.queue import QueueRow
from tests.support.made_runs import make, row, said, sealed, stage, started, store_of, submitted

NOBODY = pwd.getpwnam("nobody")


def refused(words: str) -> Callable[[Run], list[QueueRow]]:
    def build(run: Run) -> list[QueueRow]:
        attempt = submitted(run, "cpt")
        claim.supersede(store_of(run, "cpt"), attempt.token, by="refused")
        run.journal.write(Event.REFUSED, stage="cpt", stderr=f"sbatch: error: Batch job submission failed: {words}")
        return []

    return build


def failed(failure: FailureClass, evidence: str) -> Callable[[Run], list[QueueRow]]:
    def build(run: Run) -> list[QueueRow]:
        submitted(run, "cpt", "11")
        started(run, "cpt", "11")
        text = evidence.format(store=run.workspace.store)
        said(run, "cpt", "11", Outcome.FAIL, failure, text, attempt="aaaaaa")
        return [row(run, "cpt", "11", JobState.FAILED)]

    return build


def cut(run: Run) -> list[QueueRow]:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    sealed(run, "cpt", job="11")
    os.truncate(store_of(run, "cpt").output / "text", 2)
    return []


def another(run: Run) -> Run:
    return make(run.workspace.root, stage("cpt", steps=60))


def finished_by_another(run: Run) -> list[QueueRow]:
    failed(FailureClass.KILLED, "exit code 137")(run)
    other = another(run)
    submitted(other, "cpt", "12", number=2, token="bbbbbb")
    started(other, "cpt", "12", token="bbbbbb")
    sealed(other, "cpt", job="12")
    return [row(run, "cpt", "11", JobState.FAILED)]


def at_work_in_another(run: Run) -> list[QueueRow]:
    failed(FailureClass.KILLED, "exit code 137")(run)
    other = another(run)
    submitted(other, "cpt", "12", number=2, token="bbbbbb")
    started(other, "cpt", "12", token="bbbbbb")
    return [row(other, "cpt", "12", JobState.RUNNING, token="bbbbbb", start=time.time())]


def of_another_user(run: Run) -> list[QueueRow]:
    """Whose jobs our squeue does not show."""
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    os.chown(store_of(run, "cpt").attempt(1), NOBODY.pw_uid, -1)
    return []


def failed_of_another_user(run: Run) -> list[QueueRow]:
    failed(FailureClass.HANG, "no step for 600 s")(run)
    of_another = store_of(run, "cpt").attempt(1)
    os.chown(of_another, NOBODY.pw_uid, -1)
    return []


def cancelled(run: Run) -> list[QueueRow]:
    submitted(run, "cpt", "11")
    run.journal.write(Event.CANCELLED, stages=["cpt"], jobs=["11"], phase="after")
    return [row(run, "cpt", "11", JobState.CANCELLED)]


def cancelled_by_hand(run: Run) -> list[QueueRow]:
    failed(FailureClass.CANCELLED, "cancelled in Slurm")(run)
    return [row(run, "cpt", "11", JobState.CANCELLED)]


def forgotten(run: Run) -> list[QueueRow]:
    submitted(run, "cpt", "11")
    started(run, "cpt", "11")
    return []


def without_claims(run: Run) -> list[QueueRow]:
    failed(FailureClass.CLAIM_LOST, "the claim of job 11 restart 0 is gone")(run)
    shutil.rmtree(store_of(run, "cpt").claims)
    return []


@dataclass(frozen=True)
class Story:
    """What all four have to say. ``next``: with the run's id for RUN and its pipeline and profile for AGAIN."""

    build: Callable[[Run], list[QueueRow]]
    state: str
    failure: str
    next: str
    listed: str
    words: str


AGAIN, RESUME = "overnight submit {pipeline} --cluster {profile}", "overnight resume {run}"
CHANGE = "change what this names in the profile or the pipeline ({hint}); then: " + AGAIN

STORIES = {
    "refused": Story(
        refused("Invalid account or account/partition combination specified"), "failed", "", CHANGE, "failed",
        "refused by Slurm",
    ),
    "refused for now": Story(
        refused("Job violates accounting/QOS policy (QOSMaxSubmitJobPerUserLimit)"), "failed", "",
        "wait until your other jobs are done; then: " + RESUME, "failed", "refused by Slurm",
    ),
    "output cut": Story(cut, "lost", "", RESUME, "damaged", "has 2 bytes, sealed with 4"),
    "inputs changed": Story(
        failed(FailureClass.DATA_ERROR, "/data/x.jsonl: changed since this run was planned: sha256 a (1 bytes)"),
        "failed", "data_error", "change the data or the setting that this line names; then: " + AGAIN, "failed",
        "its data cannot be used",
    ),
    "input damaged": Story(
        failed(FailureClass.BROKEN_INPUT, "{store}/dataset-1/output/train.jsonl: has 3 bytes, sealed with 9"),
        "failed", "broken_input", RESUME, "failed", "an input is damaged",
    ),
    "base damaged": Story(
        failed(FailureClass.BROKEN_INPUT, "{store}/download-1/output/model: has 3 bytes, sealed with 9"), "failed",
        "broken_input", "overnight fetch {pipeline} --cluster {profile}; then: " + RESUME, "failed",
        "an input is damaged",
    ),
    "file gone": Story(
        failed(FailureClass.MISSING_INPUT, "FileNotFoundError: [Errno 2] No such file or directory: '/data/x.jsonl'"),
        "failed", "missing_input", "put back the file that this line names; then: " + RESUME, "failed",
        "an input is missing",
    ),
    "finished by another run": Story(
        finished_by_another, "sealed", "", "nothing: every stage is sealed", "done", "sealed"
    ),
    "at work in another run": Story(
        at_work_in_another, "running", "", "overnight logs {run} cpt -f", "submitted", "running"
    ),
    "of another user": Story(
        of_another_user, "unknown", "", "overnight status {run}, as user nobody", "submitted", "at the last report"
    ),
    "failed, of another user": Story(
        failed_of_another_user, "failed", "hang", "as user nobody: " + RESUME, "failed", "made no progress"
    ),
    "cancelled": Story(cancelled, "cancelled", "", RESUME, "cancelled", "cancelled before its work began"),
    "cancelled by hand": Story(cancelled_by_hand, "cancelled", "cancelled", RESUME, "cancelled", "cancelled in Slurm"),
    "lost by the controller": Story(forgotten, "lost", "", RESUME, "submitted", "neither the queue nor the accounting"),
    "claims lost": Story(without_claims, "failed", "claim_lost", RESUME, "failed", "another job took its place"),
}  # fmt: skip


class Asked:
    """The commands, with a squeue that prints the rows of a case and no accounting."""

    def __init__(self, directory: Path, run: Run, rows: list[QueueRow], capsys: pytest.CaptureFixture[str]) -> None:
        self._run, self._capsys = run, capsys
        fields = [
            [one.job_id, one.state.value, "1", str(int(one.start or 0)), "N/A", "1", "n1", "batch", one.name, "(null)"]
            for one in rows
        ]
        text = "".join("\x1e" + "\x1f".join([*each, "None"]) + "\n" for each in fields)
        directory.mkdir()
        (directory / "rows").write_text(text)
        for name, does in (("squeue", f"cat {directory}/rows"), ("sacct", "exit 1")):
            (directory / name).write_text(f"#!/bin/sh\n{does}\n")
            (directory / name).chmod(0o755)

    def __call__(self, command: str, *more: str) -> Any:
        self._capsys.readouterr()
        main([command, *more, "--json", "--workspace", str(self._run.workspace.root)])
        return json.loads(self._capsys.readouterr().out)


@pytest.mark.failure(10, 18)
@pytest.mark.parametrize("name", list(STORIES))
def test_the_four_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "user" in name and os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    story = STORIES[name]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path / "ws"))
    run = make(tmp_path / "ws", stage("cpt", steps=60))
    asked = Asked(tmp_path / "bin", run, story.build(run), capsys)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (listed,) = (one for one in asked("list")["runs"] if one["run"] == run.id)
    status, doctor = asked("status", run.id), asked("doctor", run.id)
    (why,), (shown,) = asked("why", run.id, "cpt")["stages"], status["stages"]
    files = {"pipeline": tmp_path / "files" / "waits.yaml", "profile": tmp_path / "files" / "site.yaml"}
    hint = "sacctmgr show associations user=$USER format=account,partition,qos lists yours"
    expected = story.next.format(run=run.id, hint=hint, **files)
    assert (shown["state"], why["state"], listed["state"]) == (story.state, story.state, story.listed)
    assert (shown["failure"], why["failure"]) == (story.failure, story.failure)
    assert shown["text"] == why["text"]
    assert story.words in shown["text"]
    assert (status["next"], doctor["next"]) == (expected, expected)
    assert why["next"] == ("" if story.state == "sealed" else expected)
    told = [(one["kind"], one["command"]) for one in doctor["findings"]]
    assert told == ([("stage", expected)] if story.state in ("failed", "lost") else [])
    assert all(shown["text"] in one["text"] for one in doctor["findings"])


def test_cancel_says_whose_job_it_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path / "ws"))
    run = make(tmp_path / "ws", stage("cpt", steps=60))
    asked = Asked(tmp_path / "bin", run, of_another_user(run), capsys)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert asked("cancel", run.id)["theirs"] == {"cpt": "nobody"}
