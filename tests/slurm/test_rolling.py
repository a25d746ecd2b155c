"""``submission: rolling(n)`` where Slurm accepts few jobs of a user: the chain goes on by itself, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.chains import ALL, Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

ROUTED = {"executors": {"default": "submitit", "training": "submitit"}}
"""Every job that ends imports the library of the next one's executor; this one is quick."""


@contextmanager
def at_most(slurm: Slurm, jobs: int) -> Iterator[None]:
    """The site's limit of submitted jobs, kept by Slurm itself."""
    where = ["where", "account=research"]
    slurm.run(["sacctmgr", "-i", "modify", "user", *where, "set", f"MaxSubmitJobs={jobs}"])
    try:
        yield
    finally:
        slurm.run(["sacctmgr", "-i", "modify", "user", *where, "set", "MaxSubmitJobs=-1"])


@contextmanager
def partition_down(slurm: Slurm) -> Iterator[None]:
    """Jobs are accepted, none starts."""
    slurm.run(["scontrol", "update", "PartitionName=batch", "State=DOWN"])
    try:
        yield
    finally:
        slurm.run(["scontrol", "update", "PartitionName=batch", "State=UP"])


def deferred(chain: Chain, run: str) -> list[dict[str, Any]]:
    return [entry for entry in chain.journal(run) if entry["event"] == "deferred"]


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    ("stages", "limit"),
    [(("corpus", "pairs", "cpt"), 2), pytest.param(ALL, 3, marks=pytest.mark.full)],
)
def test_a_chain_goes_through_a_narrow_queue(
    slurm_accounting: Slurm, tmp_path: Path, stages: tuple[str, ...], limit: int
) -> None:
    # Every job notes what it was submitted with, and then has something that only it should have.
    notes = [f"env >'{tmp_path}'/environment.$SLURM_JOB_ID", "export CUDA_VISIBLE_DEVICES=9"]
    profile = {"submission": f"rolling({limit})", "account": "research", "setup": notes, **ROUTED}
    chain = Chain(slurm_accounting, tmp_path / "work", stages, profile=profile)
    chain.fetch()
    with at_most(slurm_accounting, limit):
        with partition_down(slurm_accounting):  # lest the jobs are through before we have looked
            said = chain.overnight("submit").stdout
            (run,) = chain.runs()
            waiting = {stage["stage"]: stage["state"] for stage in chain.status(run)["stages"]}
        assert f"stages follow as jobs end (submission: rolling({limit}))" in said
        first = deferred(chain, run)[0]
        assert (len(first["stages"]), first["by"]) == (len(chain.plan_names(run)) - limit, None)
        assert "deferred" in waiting.values()
        chain.wait(timeout=600)
    chain.assert_done_once(run)
    # From the second look on it was jobs that submitted, and Slurm that said when it is too much.
    later = deferred(chain, run)[1:]
    assert all(entry["by"] is not None for entry in later)
    assert "SubmitJob" in next(entry["stderr"] for entry in chain.journal(run) if entry["event"] == "refused")
    assert {stage["state"] for stage in chain.status(run)["stages"]} == {"sealed"}
    environments = [path.read_text() for path in tmp_path.glob("environment.*")]
    assert len(environments) == len(stages)
    assert not any("CUDA_VISIBLE_DEVICES=9" in text for text in environments)


@pytest.mark.full
@pytest.mark.failure(17)
def test_what_failed_or_was_cancelled_is_not_tried_again_by_a_job(slurm_accounting: Slurm, tmp_path: Path) -> None:
    settings = {"prefs": {"from": "./prefs.jsonl", "min_chars": 100_000}}  # nothing is left of it: it fails
    stages = ("corpus", "pairs", "prefs", "cpt")
    profile = {"submission": "rolling(2)", "sbatch": {"hold": True}}
    chain = Chain(slurm_accounting, tmp_path / "work", stages, settings=settings, profile=profile)
    chain.fetch()
    run = chain.submit()
    chain.cancel(run, "pairs")
    chain.cancel(run, "cpt")  # that has no job yet
    chain.release()
    chain.wait_until(lambda: any(job.stage == "prefs" for job in chain.jobs()), "corpus to submit prefs")
    chain.wait_until(lambda: chain.release() is None and all(job.row.state.is_final for job in chain.jobs()), "the end")
    states = {stage["stage"]: stage["state"] for stage in chain.status(run)["stages"]}
    assert states == {"corpus": "sealed", "pairs": "cancelled", "prefs": "failed", "cpt": "not submitted"}
    assert sorted(job.stage for job in chain.jobs()) == ["corpus", "pairs", "prefs"]
    found = chain.resume(run)
    assert (found["pairs"][0], found["prefs"][0], found["cpt"][0]) == ("submitted", "submitted", "later")
