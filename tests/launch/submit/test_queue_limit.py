"""Room in the queue: what counts, what waits, what a job's end leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.core import attempts
from jobs.core.attempts import Attempt
from jobs.core.paths import StorePaths
from jobs.core.slurm_states import JobState
from launch.base.errors import RejectedByCluster
from launch.config.profile_fields import rolling
from launch.slurm.queue import QueueRow
from launch.submit.queue_limit import QueueSlots

TOO_MANY = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"


def row(job: str) -> QueueRow:
    return QueueRow(job, f"on-abcde-x-{job}", JobState.PENDING, "Priority", None, None, None, 1, "", "batch", "")


def refusal(stderr: str) -> RejectedByCluster:
    return RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr=stderr)


@pytest.mark.parametrize(("text", "limit"), [("all", None), ("rolling(2)", 2), ("rolling(1000)", 1000)])
def test_what_is_written(text: str, limit: int | None) -> None:
    assert rolling(text) == limit


@pytest.mark.parametrize(
    "text", ["rolling", "rolling(1)", "rolling(0)", "rolling(x)", "rolling(3) ", "3", "rolling(-2)"]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rolling"):
        rolling(text)


def test_jobs_are_counted_but_for_the_one_that_ends() -> None:
    room = QueueSlots(3, "abcde", ending="7")
    room.look([row("7"), row("8")], [])
    assert room.has_for(2)
    room.take(2)
    assert not room.has_for(1)
    assert QueueSlots(None, "abcde").has_for(1000)


def test_too_many_jobs_wait_where_one_of_ours_will_end() -> None:
    room = QueueSlots(3, "abcde")
    assert not room.may_wait(refusal(TOO_MANY)), "nobody would go on"
    room.take(1)
    assert not room.may_wait(refusal("sbatch: error: Batch job submission failed: Invalid qos specification"))
    assert room.has_for(1)
    assert room.may_wait(refusal(TOO_MANY))
    assert not room.has_for(1), "no second try of the same answer"
    assert not QueueSlots(None, "abcde", "7").may_wait(refusal(TOO_MANY))
    last = QueueSlots(2, "abcde", "7")
    assert last.may_wait(refusal(TOO_MANY))
    assert last.falls_to_this_job


def test_two_that_end_at_once_do_not_leave_it_to_each_other() -> None:
    """The first leaves it to the second; the second sees that the first is on its way out, and stays until it is gone."""
    first, second = QueueSlots(2, "abcde", "7"), QueueSlots(2, "abcde", "8")
    both = [row("7"), row("8")]
    first.look(both, [])
    assert first.may_wait(refusal(TOO_MANY))
    assert not first.falls_to_this_job
    second.look(both, [{"event": "deferred", "stages": ["cpt"], "by": "7"}])
    assert second.has_for(2)
    assert second.may_wait(refusal(TOO_MANY))
    assert second.falls_to_this_job


def test_what_had_a_job_is_left_alone_by_a_job(tmp_path: Path) -> None:
    store = StorePaths(tmp_path)
    attempt = Attempt(1, "aaaaaa", "abcde", "cpt", str(tmp_path / "cpt"), "slurm", ("on-abcde-cpt-aaaaaa",))
    assert attempts.open_next(store, attempt)
    room = QueueSlots(2, "abcde", ending="7")
    assert not room.leaves_alone(store, None)
    assert not room.leaves_alone(store, attempt), "it was refused: it never had one"
    attempts.record_job(store, attempt, 0, "12")
    assert room.leaves_alone(store, attempt)
    assert not QueueSlots(2, "abcde").leaves_alone(store, attempt), "the user resumes it"
    assert not QueueSlots(2, "other", "7").leaves_alone(store, attempt), "of another run"


def test_what_was_cancelled_stays_so_until_the_user_resumes() -> None:
    def waits(*events: dict[str, Any]) -> bool:
        room = QueueSlots(2, "abcde", ending="7")
        room.look([], events)
        return room.waits("cpt", ())

    cancelled = {"event": "cancelled", "stages": ["cpt"]}
    assert waits(cancelled)
    assert waits(cancelled, {"event": "deferred", "stages": ["cpt"], "by": "6"})
    assert not waits(cancelled, {"event": "deferred", "stages": ["cpt"], "by": None})
    room = QueueSlots(2, "abcde")
    room.deferred.append("cpt")
    assert room.waits("sft", ("cpt",))
    assert not room.waits("dpo", ("pairs",))
