"""Two copies of one job in the queue, as after an sbatch whose answer was lost: one works, the other stands behind it.

Whichever copy's id the dependents wait for, they start after the seal, and if the work fails they do not start at all.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.chains import Chain, by_stage
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

STAGES = ("corpus", "cpt", "baseline")
SETTINGS = {"baseline": {"checkpoint": "cpt"}}
"""The evaluation waits for the training."""

HELD: dict[str, Any] = {"executors": {"default": "submitit", "training": "submitit"}, "sbatch": {"hold": True}}
"""Every job waits until the test releases it."""


class Twice:
    """A chain of which ``cpt`` is in the queue twice: the job that we know of and a copy."""

    def __init__(self, slurm: Slurm, directory: Path, **profile: Any) -> None:
        # Slow enough to be stopped in the middle.
        settings = {**SETTINGS, "cpt": {"options": {"step_seconds": 0.2}}}
        self.chain = Chain(slurm, directory, STAGES, settings=settings, profile={**HELD, **profile})
        self.chain.fetch()
        self.run = self.chain.submit()
        jobs = by_stage(self.chain.jobs())
        self.known = jobs["cpt"][0].row.job_id
        corpus = jobs["corpus"][0].row.job_id
        self.copy = self.chain.sbatch_again(self.run, "cpt", jobs["cpt"][0].attempt, f"--dependency=afterok:{corpus}")
        self.chain.release(corpus)

    def begin(self, job: str) -> None:
        """Let this copy start, and stop its work in the middle until ``go_on``."""
        self.chain.release(job)
        self.chain.wait_until(lambda: job in self.chain.workers("cpt"), "the work of the first copy")
        self.chain.wait_until(lambda: self.signal(job, signal.SIGSTOP, b"work"), "its process")

    def go_on(self, job: str) -> None:
        self.signal(job, signal.SIGCONT, b"work")

    def signal(self, job: str, number: signal.Signals, word: bytes | None = None) -> int:
        """Send a signal to the processes of a job (those with ``word`` on their command line); how many there were."""
        wanted, ours = f"SLURM_JOB_ID={job}".encode(), str(self.chain.directory).encode()
        found = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
                # Other clusters on this machine have jobs of this number, too.
                if (
                    wanted in variables
                    and any(ours in value for value in variables)
                    and (word is None or word in words)
                ):
                    os.kill(int(entry.name), number)
                    found += 1
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def stands_behind(self, job: str, rival: str) -> bool:
        """Whether ``job`` is in the queue and waits for the end of its rival."""
        row = next(one.row for one in self.chain.jobs() if one.row.job_id == job)
        return row.state.is_queued and f"afterany:{rival}" in row.dependency

    def assert_all_well(self) -> None:
        self.chain.release()  # also the dependents, which wait for the known copy
        self.chain.wait()
        self.chain.assert_done_once(self.run)
        assert {job.row.state for job in self.chain.jobs()} == {"COMPLETED"}


@pytest.mark.parametrize("first", [pytest.param("known", marks=pytest.mark.full), "copy"])
@pytest.mark.failure(10, 22)
def test_one_works_and_the_other_waits_behind_it(slurm: Slurm, tmp_path: Path, first: str) -> None:
    twice = Twice(slurm, tmp_path / "chain")
    worker, other = (twice.known, twice.copy) if first == "known" else (twice.copy, twice.known)
    twice.begin(worker)
    twice.chain.release()
    twice.chain.wait_until(lambda: twice.stands_behind(other, worker), "the second copy to stand behind the first")
    twice.go_on(worker)
    twice.assert_all_well()


@pytest.mark.full
@pytest.mark.failure(10)
def test_of_two_that_start_together_one_works(slurm: Slurm, tmp_path: Path) -> None:
    Twice(slurm, tmp_path / "chain").assert_all_well()


def test_behind_a_copy_that_is_killed_there_is_no_endless_waiting(slurm: Slurm, tmp_path: Path) -> None:
    twice = Twice(slurm, tmp_path / "chain")
    chain = twice.chain
    twice.begin(twice.copy)
    chain.release()
    chain.wait_until(lambda: twice.stands_behind(twice.known, twice.copy), "the known job to stand behind the copy")
    # The batch shell, too: no verdict is left, as when a node loses its power.
    twice.signal(twice.copy, signal.SIGKILL)
    chain.wait()
    states = {job.row.job_id: job.row.state for job in chain.jobs()}
    assert (states[twice.copy], states[twice.known]) == ("FAILED", "FAILED")
    assert by_stage(chain.jobs())["baseline"][0].row.state == "CANCELLED"
    actions = {stage: action for stage, (action, _) in chain.resume(twice.run).items()}
    assert actions == {"corpus": "reused", "cpt": "submitted", "baseline": "submitted"}


def test_where_jobs_may_not_be_requeued_the_copy_waits_where_it_is(slurm: Slurm, tmp_path: Path) -> None:
    twice = Twice(slurm, tmp_path / "chain", continuation="chain", links=2)
    twice.begin(twice.copy)
    twice.chain.release()
    twice.chain.wait_until(lambda: twice.chain.events("cpt", "claimed_by_another"), "the known job to find the copy")
    twice.go_on(twice.copy)
    twice.assert_all_well()


@pytest.mark.failure(10, 22)
@pytest.mark.parametrize("end", ["the copy finishes", "the copy is killed"])
def test_a_later_link_waits_for_a_copy_that_it_does_not_know(slurm: Slurm, tmp_path: Path, end: str) -> None:
    """The link before it, of which we know, was cancelled while it waited, and that released it."""
    twice = Twice(slurm, tmp_path / "chain", continuation="chain", links=2)
    chain = twice.chain
    later = next(
        job.row.job_id for job in by_stage(chain.jobs())["cpt"] if job.row.job_id not in (twice.known, twice.copy)
    )
    twice.begin(twice.copy)
    slurm.run(["scancel", twice.known])
    chain.release(later)
    chain.wait_until(
        lambda: any(event["job"] == later for event in chain.events("cpt", "waits_for")),
        "the later link to see the copy",
    )
    assert chain.workers("cpt") == {twice.copy}
    if end == "the copy finishes":
        twice.go_on(twice.copy)
    else:
        twice.signal(twice.copy, signal.SIGKILL)  # the batch shell, too
    chain.release()
    chain.wait()
    chain.assert_done_once(twice.run, failed_before=() if end == "the copy finishes" else ("cpt",))
    assert chain.workers("cpt") == ({twice.copy} if end == "the copy finishes" else {twice.copy, later})
    states = {job.row.job_id: job.row.state for job in chain.jobs()}
    assert states[later] == "COMPLETED"
    assert by_stage(chain.jobs())["baseline"][0].row.state == "COMPLETED"
