"""One letter a sweep: not one a chain, when no chain goes on any more, and once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launch.cli.main import main
from launch.notify import of_family
from launch.notify.letter import About
from launch.runs import family as families
from launch.runs import secret_files
from launch.runs.family import Family
from launch.runs.journal import Event
from launch.status import family as family_status
from launch.status.family import FamilyStatus
from launch.status.model import StageStatus, State
from tests.launch.notify.test_letters import FAILED, UNDECIDED, status_of
from tests.launch.status.test_family import LOSSES, made
from tests.support.inbox import Inbox, serving
from tests.support.made_runs import submitted

pytest.importorskip("apprise")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    yield from serving()


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """Four chains of one stage, which is sealed."""
    found, _ = made(tmp_path, profile={"notify": "{to: [LETTERS]}"})
    return found


@pytest.fixture
def begun(tmp_path: Path) -> Family:
    """Four chains of one stage, of which nothing is sealed."""
    found, _ = made(tmp_path, dict.fromkeys(LOSSES), profile={"notify": "{to: [LETTERS]}"})
    return found


def status(family: Family, *chains: StageStatus | State) -> FamilyStatus:
    """``chains``: how the stage of each stands."""
    found = family_status.look(family)
    shown = [one if isinstance(one, StageStatus) else StageStatus("final", one, "") for one in chains]
    members = [
        replace(one, status=status_of(one.run, final=replace(state, stage="final")))
        for one, state in zip(found.members, shown, strict=True)
    ]
    return replace(found, members=tuple(members))


def about(family: Family, *chains: StageStatus | State) -> About | None:
    found = of_family.of_family(family, status(family, *chains))
    return None if found is None else found.about


def submitted_all(family: Family) -> None:
    for run in family.runs:
        submitted(run, "final", "7")


DONE, GOES, NOT = State.SEALED, State.RUNNING, State.NOT_SUBMITTED


def test_it_comes_when_no_chain_goes_on(begun: Family) -> None:
    submitted_all(begun)
    assert about(begun, DONE, DONE, DONE, GOES) is None
    assert about(begun, FAILED, DONE, DONE, GOES) is None
    assert about(begun, DONE, DONE, DONE, DONE) is About.DONE
    assert about(begun, FAILED, DONE, DONE, DONE) is About.FAILED
    assert about(begun, UNDECIDED, DONE, UNDECIDED, DONE) is About.UNDECIDED
    assert about(begun, UNDECIDED, DONE, FAILED, DONE) is About.FAILED
    assert about(begun, DONE, DONE, DONE, State.BLOCKED) is About.STUCK


def test_chains_that_wait_for_their_turn_go_on_while_a_job_can_submit_them(
    begun: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = replace(begun.record, at_once=1)
    monkeypatch.setattr(Family, "record", rolling)
    first = begun.runs[0]
    submitted(first, "final", "7")
    running = StageStatus("final", State.RUNNING, "", job="7")
    assert about(begun, running, NOT, NOT, NOT) is None
    # By the last job itself, after it has found nothing to submit; and by a login node when no job is left.
    assert about(begun, DONE, NOT, NOT, NOT) is About.STUCK
    begun.journal.write(Event.CANCELLED)
    assert about(begun, State.CANCELLED, NOT, NOT, NOT) is About.FAILED
    begun.journal.write(Event.DEFERRED, runs=[], by=None)
    assert about(begun, FAILED, FAILED, FAILED, FAILED) is About.FAILED
    with families.locked(begun):
        assert about(begun, DONE, NOT, NOT, NOT) is None


def test_a_lock_that_a_dead_process_left_stops_nothing(begun: Family) -> None:
    submitted_all(begun)
    holder = f'{{"host": "{socket.gethostname()}", "pid": {2**22 - 1}, "token": "x"}}'
    begun.paths.lock.write_text(holder)
    assert about(begun, DONE, DONE, DONE, DONE) is About.DONE
    assert os.path.exists(begun.paths.lock)


def test_the_subject_names_the_best_chain(family: Family) -> None:
    found = of_family.of_family(family, status(family, DONE, DONE, DONE, FAILED))
    assert found is not None
    best = family_status.look(family).best
    assert best is not None
    assert found.subject == (
        f"p {family.id}: FAILED, 3 of 4 chains done, best {best.run.id} (lr 2e-05 beta 0.1): loss 2"
    )
    assert "mean difference" in found.body
    assert str(family.paths.page) in found.body


def test_one_letter_to_each_address_and_none_for_a_chain(
    family: Family, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in family.runs:
        secret_files.write(run.paths, {"LETTERS": inbox.url})
    where = ["--workspace", str(family.workspace.root)]
    for run in family.runs:  # as the last job of each chain does
        main(["notify", run.id, *where])
    main(["notify", family.id, *where])
    main(["notify", "--all", *where])
    assert [one["title"].split(", best")[0] for one in inbox.got] == [f"p {family.id}: DONE, 4 chains"]
    assert not any(run.paths.outbox.exists() for run in family.runs)
    assert all(run.paths.page.exists() for run in family.runs)
    assert family.paths.page.exists()
    assert "to LETTERS: sent" in capsys.readouterr().out


def test_where_nothing_gets_out_it_waits_in_the_outbox(
    family: Family, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in family.runs:
        secret_files.write(run.paths, {"LETTERS": inbox.url})
    where = ["--workspace", str(family.workspace.root)]
    inbox.answer = 500
    assert main(["notify", family.runs[-1].id, *where]) == 1
    assert [path.suffix for path in family.paths.outbox.iterdir()] == [".json"]
    inbox.answer = 200
    assert main(["notify", "--all", *where]) == 0
    assert len(inbox.got) == 1
    assert f"family {family.id}: letter" in capsys.readouterr().out
