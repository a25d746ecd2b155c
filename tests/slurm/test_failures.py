"""How a stage fails on the real Slurm, what is made of it, and what may be tried again."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.core import verdict
from jobs.core.verdict import FailureClass, Outcome, Verdict
from tests.support.chains import SHORT, Chain, wrapper
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm


def make(slurm: Slurm, directory: Path, cpt: dict[str, Any], **profile: Any) -> tuple[Chain, str]:
    chain = Chain(slurm, directory / "work", SHORT, settings={"cpt": {"nodes": 1, "steps": 8, **cpt}}, profile=profile)
    chain.fetch()
    return chain, chain.submit()


def verdicts(chain: Chain, run: str) -> list[Verdict]:
    return verdict.all_of(chain.stage(run, "cpt"))


def why(chain: Chain, run: str) -> dict[str, Any]:
    """What ``overnight why`` says of the stage."""
    said: dict[str, Any] = json.loads(chain.overnight("why", run, "cpt", "--json", code=None).stdout)
    return dict(said["stages"][0])


@pytest.mark.failure(8, 43)
def test_two_ranks_one_of_which_hangs(slurm: Slurm, tmp_path: Path) -> None:
    """Rank 1 waits in a lock, rank 0 for rank 1: the stacks of both are kept, the stage goes on from its save."""
    mishap = {"mishap": "hang", "mishap_step": 4, "mishap_rank": 1, "mishap_starts": 1}
    settings = {"nodes": 2, "save_every": 2, "options": mishap}
    chain, run = make(slurm, tmp_path, settings, stall_after="0:05")
    chain.wait()
    first, last = verdicts(chain, run)[-2:]
    assert (first.outcome, first.failure) == (Outcome.RETRY, FailureClass.HANG), chain.story(run, "cpt")
    assert last.outcome is Outcome.DONE
    stacks = sorted(chain.stage(run, "cpt").logs.glob("*_0.rank*.stack"))
    assert [path.name.split(".")[1] for path in stacks] == ["rank0", "rank1"]
    assert "toy/mishaps.py" in stacks[0].read_text()
    assert "in meet" in stacks[0].read_text()
    assert "in strike" in stacks[1].read_text()
    assert first.source == str(stacks[0])
    assert [line["step"] for line in chain.events("cpt", "resumed")] == [2]


@pytest.mark.failure(8, 43)
def test_a_hang_spends_its_budget(slurm: Slurm, tmp_path: Path) -> None:
    settings = {"options": {"mishap": "hang", "mishap_step": 3}}
    chain, run = make(slurm, tmp_path, settings, stall_after="0:03", retries={"hang": 0})
    chain.wait()
    (only,) = verdicts(chain, run)
    assert (only.outcome, only.failure) == (Outcome.FAIL, FailureClass.HANG), chain.story(run, "cpt")
    said = why(chain, run)
    assert said["failure"] == "hang"
    assert said["source"].endswith(".rank0.stack")
    assert said["retries_allowed"] == 0


@pytest.mark.failure(43)
def test_a_slow_stage_is_not_taken_for_a_hang(slurm: Slurm, tmp_path: Path) -> None:
    """Each step takes longer than ``stall_after``."""
    settings = {"steps": 3, "options": {"step_seconds": 3.0}}
    chain, run = make(slurm, tmp_path, settings, stall_after="0:02")
    chain.wait()
    assert chain.store(run, "cpt").seal.exists(), chain.story(run, "cpt")
    assert not chain.events("cpt", "hang")


@pytest.mark.failure(8, 9)
def test_a_kill_goes_on_from_the_save_and_is_charged(slurm: Slurm, tmp_path: Path) -> None:
    """The work is killed after step 5 of every start: with one retry the second kill ends it."""
    settings = {"save_every": 2, "options": {"mishap": "kill", "mishap_step": 5}}
    chain, run = make(slurm, tmp_path, settings, retries={"killed": 1})
    chain.wait()
    first, second = verdicts(chain, run)
    assert (first.outcome, first.failure, first.step) == (Outcome.CONTINUE, FailureClass.KILLED, 4)
    assert "137" in first.evidence
    assert second.outcome is Outcome.FAIL, "it did not get beyond the save"
    assert not chain.store(run, "cpt").seal.exists()
    assert why(chain, run)["saved"] == 4


@pytest.mark.full
@pytest.mark.failure(8)
@pytest.mark.parametrize(
    ("mishap", "failure"),
    [("memory", FailureClass.OUT_OF_MEMORY), ("code", FailureClass.CODE_ERROR)],
)
def test_what_would_happen_again_is_not_tried_again(
    slurm: Slurm, tmp_path: Path, mishap: str, failure: FailureClass
) -> None:
    chain, run = make(slurm, tmp_path, {"options": {"mishap": mishap}})
    chain.wait()
    (only,) = verdicts(chain, run)
    assert (only.outcome, only.failure) == (Outcome.FAIL, failure), only
    log, _, number = only.source.rpartition(":")
    assert Path(log).read_text().splitlines()[int(number) - 1].strip() in only.evidence + " ", only


@pytest.mark.failure(8, 42)
def test_a_node_that_fails_twice_is_kept_off(slurm: Slurm, tmp_path: Path) -> None:
    """No GPU on the node, twice: the trap excludes it after its requeue, and the third start is elsewhere."""
    settings = {"options": {"mishap": "gpu", "mishap_step": 1, "mishap_starts": 2}}
    chain, run = make(slurm, tmp_path, settings)
    chain.wait()
    starts = [line["nodes"][0] for line in chain.events("cpt", "start")]
    assert len(starts) == 3, chain.story(run, "cpt")
    assert starts[0] == starts[1], "an idle cluster gives the first node"
    assert starts[2] != starts[0]
    assert [line["nodes"] for line in chain.events("cpt", "avoids")] == [[starts[0]]]
    assert chain.store(run, "cpt").seal.exists()
    assert why(chain, run)["avoids"] == [starts[0]]


@pytest.mark.full
@pytest.mark.failure(1)
@pytest.mark.parametrize("answer", ["Requested operation is presently disabled", "Access/permission denied"])
def test_a_requeue_that_is_refused_never_looks_like_success(slurm: Slurm, tmp_path: Path, answer: str) -> None:
    body = f'[ "$1" = requeue ] && {{ echo "{answer} for job $2" >&2; exit 1; }}\nexec "$REAL" "$@"'
    path = wrapper(tmp_path / "bin", "scontrol", body)["PATH"].partition(":")[0]
    settings = {"options": {"mishap": "gpu", "mishap_step": 1}}
    chain, run = make(slurm, tmp_path, settings, setup=[f"export PATH={path}:$PATH"])
    chain.wait()
    (job,) = [job.row for job in chain.jobs() if job.stage == "cpt"]
    assert job.state == "FAILED"
    assert slurm.job(job.job_id)["ExitCode"] == "75:0"
    assert answer in chain.events("cpt", "not_requeued")[0]["answer"]
    assert answer in why(chain, run)["evidence"]


@pytest.mark.failure(1, 9)
def test_a_node_without_our_interpreter_runs_nothing_and_why_tells_it(slurm: Slurm, tmp_path: Path) -> None:
    """As of a virtual environment on a disk of the login node. Each start excludes its node; then it fails."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    chain, run = make(
        slurm, tmp_path, {}, environments={"core": {"python": str(link)}}, setup=[f"rm -f {shlex.quote(str(link))}"]
    )
    chain.wait()
    assert chain.events("corpus", "start") == []
    said = json.loads(chain.overnight("why", run, "corpus", "--json", code=1).stdout)["stages"][0]
    assert said["failure"] == "environment", said
    assert str(link) in said["evidence"]
    assert said["source"]
    assert "overnight submit" in said["next"]
    status = chain.overnight("status", run, code=1).stdout
    assert "its environment could not be set up on the node" in status
