"""One letter a run: when it is written, what its subject says, and that it is sent once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files
from jobs.core.seal import SealKind
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.notify import letter, outbox
from launch.notify.letter import About, Letter
from launch.runs import secret_files
from launch.runs.rundir import Run
from launch.status.model import RunStatus, StageStatus, State
from tests.launch.status.test_results import AFTER, BEFORE, evaluation
from tests.support.inbox import Inbox, serving
from tests.support.made_runs import make, said, sealed, stage, started, submitted

pytest.importorskip("apprise")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    yield from serving()


def a_run(tmp_path: Path, *stages: Any) -> Run:
    profile = {"executor": "local", "notify": "{to: [LETTERS]}"}
    return make(tmp_path / "ws", *(stages or (stage("cpt", executor="local"),)), profile=profile)


def status_of(run: Run, **states: StageStatus | State) -> RunStatus:
    found = [one if isinstance(one, StageStatus) else StageStatus(name, one, one.value) for name, one in states.items()]
    return RunStatus(tuple(found))


def about(run: Run, **states: StageStatus | State) -> About | None:
    found = letter.of_run(run, run.plan(), run.profile(), status_of(run, **states))
    return None if found is None else found.about


FAILED = StageStatus("cpt", State.FAILED, "failed: ran out of memory", failure="out_of_memory")
UNDECIDED = StageStatus("cpt", State.FAILED, "failed: too little", failure="gate_undecided")


def test_a_letter_comes_when_nothing_goes_on_any_more(tmp_path: Path) -> None:
    run = a_run(tmp_path, stage("cpt"), stage("sft", "cpt"), stage("other"))
    parent = {"sft": State.WAITING, "other": State.SEALED}
    assert about(run, cpt=State.RUNNING, **parent) is None
    assert about(run, cpt=FAILED, sft=State.WAITING, other=State.RUNNING) is None
    assert about(run, cpt=FAILED, sft=State.SKIPPED, other=State.WAITING) is None
    assert about(run, cpt=FAILED, **parent) is About.FAILED  # what waits for it never starts
    assert about(run, cpt=UNDECIDED, **parent) is About.UNDECIDED
    assert about(run, cpt=State.SEALED, sft=State.BLOCKED, other=State.SEALED) is About.STUCK
    assert about(run, cpt=State.UNKNOWN, sft=State.WAITING, other=State.SEALED) is None
    assert about(run, cpt=State.SEALED, sft=State.SEALED, other=State.SEALED) is About.DONE


def test_the_job_that_asks_is_judged_by_its_own_verdict(tmp_path: Path) -> None:
    run = a_run(tmp_path, stage("cpt"))
    submitted(run, "cpt", "7")
    started(run, "cpt", "7")
    assert about(run, cpt=State.RUNNING) is None
    said(run, "cpt", "7", Outcome.FAIL, FailureClass.OUT_OF_MEMORY, "killed", attempt="aaaaaa")
    assert about(run, cpt=State.RUNNING) is About.FAILED
    sealed(run, "cpt")
    assert about(run, cpt=State.RUNNING) is About.DONE


def test_the_same_end_is_the_same_letter(tmp_path: Path) -> None:
    """What waits behind a failed stage is in the queue first and gone later: no other end, and no other letter."""
    run = a_run(tmp_path, stage("cpt"), stage("sft", "cpt"))
    told = [
        letter.of_run(run, run.plan(), run.profile(), status_of(run, cpt=FAILED, sft=state))
        for state in (State.WAITING, State.BLOCKED, State.SKIPPED)
    ]
    assert len({one.key for one in told if one is not None}) == 1
    other = letter.of_run(run, run.plan(), run.profile(), status_of(run, cpt=State.SEALED, sft=State.FAILED))
    assert other is not None
    assert told[0] is not None
    assert other.key != told[0].key


def test_subjects_hold_the_verdict(tmp_path: Path) -> None:
    run = a_run(tmp_path, evaluation("baseline"), evaluation("final", "baseline"))
    sealed(run, "baseline", SealKind.EVALUATION, metrics=BEFORE)
    sealed(run, "final", SealKind.EVALUATION, metrics=AFTER)
    made = letter.of_run(run, run.plan(), run.profile(), status_of(run, baseline=State.SEALED, final=State.SEALED))
    assert made is not None
    assert made.subject == f"waits {run.id}: DONE, 1/2 gates, perplexity 27.1 -> 15.5 better"
    assert str(run.paths.page) in made.body
    other = a_run(tmp_path)
    found = letter.of_run(other, other.plan(), other.profile(), status_of(other, cpt=FAILED))
    assert found is not None
    assert found.subject == f"waits {other.id}: FAILED, cpt: failed: ran out of memory"


def posted(run: Run) -> Letter:
    made = Letter(About.DONE, "done-0123", "waits: DONE", "all of it")
    assert outbox.post(run.paths, made)
    assert not outbox.post(run.paths, made)
    return made


def test_a_letter_is_sent_once_also_by_many_at_once(tmp_path: Path, inbox: Inbox) -> None:
    run = a_run(tmp_path)
    posted(run)
    with ThreadPoolExecutor(6) as pool:
        told = [
            one for found in pool.map(lambda _: outbox.deliver(run.paths, {"A": inbox.url}), range(6)) for one in found
        ]
    assert [one["title"] for one in inbox.got] == ["waits: DONE"]
    assert [one.state for one in told].count("sent") == 1
    assert outbox.deliver(run.paths, {"A": inbox.url}) == []


def test_what_is_refused_is_sent_later_and_its_address_is_not_told(tmp_path: Path, inbox: Inbox) -> None:
    run = a_run(tmp_path)
    posted(run)
    inbox.answer = 500
    (told,) = outbox.deliver(run.paths, {"A": inbox.url})
    assert told.state == "refused"
    assert "secret-token" not in told.why
    assert [path.name for path in run.paths.outbox.iterdir()] == ["done-0123.json"]
    inbox.answer = 200
    assert [one.state for one in outbox.deliver(run.paths, {"A": inbox.url})] == ["sent"]
    assert len(inbox.got) == 1


def test_what_was_cut_off_is_sent_again_only_when_asked_for(tmp_path: Path, inbox: Inbox) -> None:
    run = a_run(tmp_path)
    posted(run)
    assert files.create_exclusive(run.paths.outbox / "done-0123.A.trying", "{}")
    assert [one.state for one in outbox.deliver(run.paths, {"A": inbox.url})] == ["unknown"]
    assert inbox.got == []
    assert [one.state for one in outbox.deliver(run.paths, {"A": inbox.url}, again=True)] == ["sent"]


def test_an_address_that_does_not_answer_is_left(tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SECONDS", 5.0)
    run = a_run(tmp_path)
    posted(run)
    inbox.answer = None
    began = time.monotonic()
    (told,) = outbox.deliver(run.paths, {"A": inbox.url})
    assert told.state == "refused"
    assert time.monotonic() - began < 20
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"json://127.0.0.1:{nobody.getsockname()[1]}"
        assert outbox.deliver(run.paths, {"A": url})[0].state == "refused"
    assert outbox.deliver(run.paths, {"A": "no address"})[0].why == "its value is not a URL that apprise supports"


def test_the_command_tells_what_became_of_it(tmp_path: Path, inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path)
    secret_files.write(run.paths, {"LETTERS": inbox.url})
    where = ["--workspace", str(run.workspace.root)]
    sealed(run, "cpt")
    assert main(["notify", run.id, *where]) == 0
    assert "to LETTERS: sent" in capsys.readouterr().out
    assert inbox.got[0]["title"] == f"waits {run.id}: DONE"
    assert run.paths.page.exists()
    assert main(["notify", "--all", *where]) == 0
    assert capsys.readouterr().out == "nothing to send\n"
    assert len(inbox.got) == 1
    assert main(["notify", run.id, "--all", *where]) == 2


def test_a_run_without_addresses_writes_no_letter(tmp_path: Path) -> None:
    run = make(tmp_path / "ws", stage("cpt", executor="local"), profile={"executor": "local"})
    sealed(run, "cpt")
    assert main(["notify", run.id, "--workspace", str(run.workspace.root)]) == 0
    assert not run.paths.outbox.exists()
