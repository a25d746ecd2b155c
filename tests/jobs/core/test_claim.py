"""Of any number of copies of a job, one does the work; an attempt given up can never start."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from jobs.core import attempts, claim
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim, ClaimLost
from jobs.core.paths import StorePaths


@pytest.fixture
def store(tmp_path: Path) -> StorePaths:
    root = tmp_path / "checkpoint-0123"
    root.mkdir()
    return StorePaths(root)


def start(job: str, restart: int = 0, link: int = 0, attempt: str = "aaaaaa") -> Claim:
    return Claim(attempt, link, restart, job, "node1", time.time())


def test_one_of_two_copies_gets_it(store: StorePaths) -> None:
    assert claim.take(store, start("100")) is None
    rival = claim.take(store, start("101"))
    assert rival is not None
    assert rival.job == "100"
    late = claim.take(store, start("101", restart=1))
    assert late is not None
    assert late.job == "100"


def _race(root: Path, job: int, gate: object, answers: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    answers.put(claim.take(StorePaths(root), start(str(job))) is None)  # type: ignore[attr-defined]


@pytest.mark.failure(10, 37)
def test_many_processes_at_once(store: StorePaths) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        for path in list(store.claims.glob("*")) if store.claims.exists() else []:
            path.unlink()
        gate, answers = context.Barrier(8), context.Queue()
        racers = [context.Process(target=_race, args=(store.root, job, gate, answers)) for job in range(8)]
        for racer in racers:
            racer.start()
        won = [answers.get(timeout=20) for _ in racers]
        for racer in racers:
            racer.join()
        assert sum(won) == 1


@pytest.mark.failure(22)
def test_a_later_restart_takes_over_and_the_old_node_cannot_publish(store: StorePaths) -> None:
    first, second = start("100"), start("100", restart=1)
    assert claim.take(store, first) is None
    claim.check_held(store, first)
    assert claim.take(store, second) is None
    claim.check_held(store, second)
    with pytest.raises(ClaimLost, match="restart 1"):
        claim.check_held(store, first)


def test_a_job_requeued_before_its_first_prologue_holds_its_claim(store: StorePaths) -> None:
    assert claim.take(store, start("100", restart=2)) is None
    claim.check_held(store, start("100", restart=2))
    rival = claim.take(store, start("101"))
    assert rival is not None
    assert rival.job == "100"


def test_links_of_a_chain_follow_each_other(store: StorePaths) -> None:
    assert claim.take(store, start("100", link=0)) is None
    assert claim.take(store, start("101", link=1)) is None
    claim.check_held(store, start("101", link=1))
    with pytest.raises(ClaimLost):
        claim.check_held(store, start("100", link=0))


@pytest.mark.failure(10, 22)
def test_a_copy_of_an_earlier_link_does_not_work_beside_a_later_one(store: StorePaths) -> None:
    """The first link was cancelled while it waited, so nobody has its claim."""
    assert claim.take(store, start("101", link=1)) is None
    rival = claim.take(store, start("107", link=0))
    assert rival is not None
    assert rival.job == "101"
    claim.check_held(store, start("101", link=1))


def test_a_superseded_attempt_never_starts(store: StorePaths) -> None:
    assert claim.supersede(store, "aaaaaa", by="bbbbbb", links=2) is None
    for link in range(2):
        found = claim.take(store, start("100", link=link))
        assert found is not None
        assert found.job == claim.SUPERSEDED
    assert claim.supersede(store, "aaaaaa", by="cccccc") is None, "giving up twice is giving up"


def test_an_attempt_that_has_started_cannot_be_superseded(store: StorePaths) -> None:
    assert claim.take(store, start("100")) is None
    found = claim.supersede(store, "aaaaaa", by="bbbbbb")
    assert found is not None
    assert found.job == "100"


def test_a_newer_attempt_ends_the_right_to_publish(store: StorePaths) -> None:
    for number, token in ((1, "aaaaaa"), (2, "bbbbbb")):
        assert attempts.open_next(store, Attempt(number, token, "run", "cpt", "/x", "slurm", (f"on-{token}",)))
        assert claim.take(store, start(str(number), attempt=token)) is None
    with pytest.raises(ClaimLost, match="replaced by bbbbbb"):
        claim.check_held(store, start("1"))
    claim.check_held(store, start("2", attempt="bbbbbb"))


def test_a_number_is_opened_once(store: StorePaths) -> None:
    mine = Attempt(1, "aaaaaa", "run1", "cpt", "/x", "slurm", ("on-a",))
    theirs = Attempt(1, "bbbbbb", "run2", "cpt", "/y", "slurm", ("on-b",))
    assert attempts.open_next(store, mine)
    assert not attempts.open_next(store, theirs)
    assert attempts.current(store) == mine
    attempts.record_job(store, mine, 0, "77")
    assert attempts.job_ids(store, mine) == {0: "77"}
