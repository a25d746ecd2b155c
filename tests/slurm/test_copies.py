"""Two copies of one job in the queue, as after an sbatch whose answer was lost: one works, the other stands behind it.

Whichever copy's id the dependents wait for, they start after the seal, and if the work fails they do not start at all.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.chains import Chain, Job, by_stage
from tests.slurm.helpers import Slurm

pytestmark = pytest.mark.slurm

STAGES = ("corpus", "cpt", "baseline")
"""Training takes twenty steps of a given time, and the evaluation waits for it."""

HELD: dict[str, Any] = {"executors": {"default": "submitit", "training": "submitit"}, "sbatch": {"hold": True}}
"""Every job waits until the test releases it."""


class Twice:
    """A chain of which ``cpt`` is in the queue twice: the job that we know of and a copy."""

    def __init__(self, slurm: Slurm, directory: Path, *, step_seconds: float = 0.3, **profile: Any) -> None:
        settings = {"cpt": {"options": {"step_seconds": step_seconds}}, "baseline": {"checkpoint": "cpt"}}
        self.chain = Chain(slurm, directory, STAGES, settings=settings, profile={**HELD, **profile})
        self.chain.fetch()
        self.run = self.chain.submit()
        self.job = by_stage(self.chain.jobs())["cpt"][0]
        self.known = self.job.row.job_id
        corpus = by_stage(self.chain.jobs())["corpus"][0].row.job_id
        self.copy = self.chain.sbatch_again(self.run, "cpt", self.job.attempt, f"--dependency=afterok:{corpus}")
        self.slurm = slurm
        self.chain.release(corpus)

    def started(self, job: str) -> bool:
        return job in self.chain.workers("cpt")

    def stands_behind(self, job: str, rival: str) -> bool:
        """Whether ``job`` is in the queue and waits for the end of its rival."""
        row = self.row(job)
        return row.row.state.is_queued and f"afterany:{rival}" in row.row.dependency

    def row(self, job: str) -> Job:
        return next(one for one in self.chain.jobs() if one.row.job_id == job)


def kill_processes_of(job: str, directory: Path) -> None:
    """SIGKILL whatever runs for a job: its batch shell, srun, and the work."""
    wanted = f"SLURM_JOB_ID={job}".encode()
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            # Other clusters on this machine have jobs of this number, too.
            if wanted in environment and any(str(directory).encode() in value for value in environment):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue  # it has ended, or is another user's


@pytest.mark.parametrize("first", ["known", "copy"])
def test_one_works_and_the_other_waits_behind_it(slurm: Slurm, tmp_path: Path, first: str) -> None:
    twice = Twice(slurm, tmp_path / "chain")
    worker, other = (twice.known, twice.copy) if first == "known" else (twice.copy, twice.known)
    chain = twice.chain
    chain.release(worker)
    chain.wait_until(lambda: twice.started(worker), "the first copy's work")
    chain.release(other)
    chain.wait_until(lambda: twice.stands_behind(other, worker), "the second copy to stand behind the first")
    assert not chain.events("cpt", "sealed")
    chain.release()  # the dependents, of the known copy
    chain.wait()
    chain.assert_done_once(twice.run)
    assert {job.row.state for job in chain.jobs()} == {"COMPLETED"}


def test_of_two_that_start_together_one_works(slurm: Slurm, tmp_path: Path) -> None:
    twice = Twice(slurm, tmp_path / "chain")
    twice.chain.release()
    twice.chain.wait()
    twice.chain.assert_done_once(twice.run)
    assert {job.row.state for job in twice.chain.jobs()} == {"COMPLETED"}


def test_behind_a_copy_that_is_killed_there_is_no_endless_waiting(slurm: Slurm, tmp_path: Path) -> None:
    twice = Twice(slurm, tmp_path / "chain", step_seconds=2.0)
    chain = twice.chain
    chain.release(twice.copy)
    chain.wait_until(lambda: twice.started(twice.copy), "the copy's work")
    chain.release()
    chain.wait_until(lambda: twice.stands_behind(twice.known, twice.copy), "the known job to stand behind the copy")
    # The batch shell, too: no verdict is left, as when a node loses its power.
    kill_processes_of(twice.copy, chain.directory)
    chain.wait()
    states = {job.row.job_id: job.row.state for job in chain.jobs()}
    assert (states[twice.copy], states[twice.known]) == ("FAILED", "FAILED")
    assert by_stage(chain.jobs())["baseline"][0].row.state == "CANCELLED"
    actions = {stage: action for stage, (action, _) in chain.resume(twice.run).items()}
    assert actions == {"corpus": "reused", "cpt": "submitted", "baseline": "submitted"}


def test_where_jobs_may_not_be_requeued_the_copy_waits_where_it_is(slurm: Slurm, tmp_path: Path) -> None:
    twice = Twice(slurm, tmp_path / "chain", continuation="chain", links=2)
    chain = twice.chain
    chain.release(twice.copy)
    chain.wait_until(lambda: twice.started(twice.copy), "the copy's work")
    chain.release()
    chain.wait()
    chain.assert_done_once(twice.run)
    assert {job.row.state for job in chain.jobs()} == {"COMPLETED"}
