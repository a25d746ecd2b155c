"""Submit, status, resume and cancel against fake Slurm commands, for what a real Slurm does not do on demand.

The commands are those of ``shim.py``; ``overnight`` and the scripts of the jobs are the real ones.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core.slurm_states import JobState
from launch.slurm.client import Gateway
from tests.faults import shim_directory
from tests.support.chains import SHORT, Chain
from tests.support.slurm import traces

PROFILE: dict[str, Any] = {
    "devcluster": False, "executors": {"default": "submitit", "training": "submitit"}, "poll_seconds": 1,
}  # fmt: skip


class FakeSlurm:
    """What ``Chain`` wants of a cluster."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.slurm_conf = directory / "none.conf"
        self.state = directory / "state"
        self.environment = shim_directory.install(directory, sys.executable)

    def set(self, **scenario: str) -> None:
        """What goes wrong from here on."""
        (self.state / "scenario.json").write_text(json.dumps(scenario))

    def calls(self) -> Counter[str]:
        """How often each command was called."""
        lines = (self.state / "calls").read_text().splitlines() if (self.state / "calls").exists() else []
        return Counter(json.loads(line)[0] for line in lines)

    def queue(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "queue.json").read_text())["jobs"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A fetched chain of two stages."""
    directory = tmp_path_factory.mktemp("faults")
    fake: Any = FakeSlurm(directory / "slurm")
    chain = Chain(fake, directory / "chain", SHORT, profile=PROFILE)
    chain.fetch()
    return chain


@pytest.fixture
def chain(base: Chain, tmp_path: Path) -> Iterator[Chain]:
    """A copy of it with a queue of its own."""
    own = base.clone(tmp_path / "chain")
    fake: Any = FakeSlurm(tmp_path / "slurm")
    own.slurm, own.gateway = fake, Gateway(environment=fake.environment)
    yield own
    fake.set()
    own.gateway.scancel([job.row.job_id for job in own.jobs() if not job.row.state.is_final])


def beside(base: Chain, chain: Chain, **profile: Any) -> Chain:
    """The same pipeline under another profile, in the workspace and the queue of ``chain``."""
    other = base.beside(SHORT, profile={**PROFILE, **profile})
    other.workspace, other.slurm, other.gateway = chain.workspace, chain.slurm, chain.gateway
    return other


def fake(chain: Chain) -> FakeSlurm:
    assert isinstance(chain.slurm, FakeSlurm)
    return chain.slurm


@pytest.mark.failure(10, 11)
@pytest.mark.parametrize(
    "how",
    [*(pytest.param(how, marks=pytest.mark.full) for how in ("", "warn", "dropped")), "banner", "cluster", "lost"],
)
def test_accepted_whatever_sbatch_says(chain: Chain, how: str) -> None:
    fake(chain).set(sbatch=how)
    run = chain.submit()
    assert len(chain.jobs()) == len(SHORT)
    chain.wait()
    chain.assert_done_once(run)
    assert {action for action, _ in chain.resume(run).values()} == {"reused"}


@pytest.mark.failure(10, 13, 14)
@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("never", 4, "Socket timed out"),
        ("QOSMaxSubmitJobPerUserLimit", 3, "the QOS limits jobs in the queue"),
        ("AssocMaxSubmitJobLimit", 3, "your account limits jobs in the queue"),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            3,
            "does not say which",
        ),
        ("RPC rate limit exceeded, please retry", 4, "RPC rate limit"),
    ],
)
def test_not_accepted_and_resumed_later(chain: Chain, how: str, code: int, says: str) -> None:
    fake(chain).set(sbatch=how)
    refused = chain.overnight("submit", code=code)
    assert says in refused.stderr
    assert "submitted so far: nothing" in refused.stderr
    (run,) = chain.runs()
    assert f"overnight resume {run}" in refused.stderr
    fake(chain).set()
    assert {action for action, _ in chain.resume(run).values()} == {"submitted"}
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.failure(10, 18)
def test_lost_while_the_queue_is_down_too(chain: Chain) -> None:
    """Nothing can be looked up: nothing is submitted again before the queue answers; then the job is adopted."""
    fake(chain).set(sbatch="lost", squeue="down", stopped="yes")
    chain.overnight("submit", code=4)
    (run,) = chain.runs()
    chain.overnight("resume", run, code=4)
    assert len(fake(chain).queue()) == 1
    said = chain.overnight("status", run, code=4).stdout
    assert "last" in said or "since" in said
    fake(chain).set()
    assert {stage: action for stage, (action, _) in chain.resume(run).items()} == {
        "corpus": "adopted",
        "cpt": "submitted",
    }
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.failure(18, 21)
def test_no_state_is_success(chain: Chain) -> None:
    """Every state that squeue knows, and one that it does not: none makes a stage sealed, and one that is not final is
    neither failed nor lost."""
    fake(chain).set(stopped="yes")
    run = chain.submit()
    for state in [*(one.value for one in JobState), "NEW_IN_27_11"]:
        fake(chain).set(stopped="yes", state=state)
        stages = chain.status(run)["stages"]
        assert not any(stage["state"] == "sealed" for stage in stages), state
        parsed = JobState.parse(state)
        if parsed.is_queued or parsed.is_running:
            assert {stage["state"] for stage in stages} <= {"waiting", "running"}, state
        elif not parsed.is_final:
            assert {stage["state"] for stage in stages} == {"unknown"}, state


@pytest.mark.failure(18, 19, 20)
@pytest.mark.parametrize(
    "sacct",
    [*(pytest.param(how, marks=pytest.mark.full) for how in ("absent", "down", "lagging")), "requeued", "COMPLETED"],
)
def test_purged_from_the_queue(chain: Chain, sacct: str) -> None:
    """The queue has forgotten jobs that never began; whatever the accounting says, that is not success, and resume makes
    them again."""
    fake(chain).set(stopped="yes")
    run = chain.submit()
    fake(chain).set(stopped="yes", squeue="purged", sacct=sacct)
    assert not {stage["state"] for stage in chain.status(run)["stages"]} & {"sealed", "running", "waiting"}
    fake(chain).set(stopped="yes")
    chain.gateway.scancel([job.row.job_id for job in chain.jobs()])
    fake(chain).set(sacct=sacct)
    assert {action for action, _ in chain.resume(run).values()} == {"submitted"}
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.failure(19)
def test_an_id_that_is_used_again(chain: Chain) -> None:
    fake(chain).set(stopped="yes")
    run = chain.submit()
    path = fake(chain).state / "queue.json"
    value = json.loads(path.read_text())
    for job in value["jobs"].values():  # somebody else's jobs have these ids today
        job.update(name="other", state="COMPLETED")
    path.write_text(json.dumps(value))
    assert {stage["state"] for stage in chain.status(run)["stages"]} == {"lost", "skipped"}
    fake(chain).set()
    assert {action for action, _ in chain.resume(run).values()} == {"submitted"}
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.failure(14)
def test_few_calls_however_many_jobs(chain: Chain) -> None:
    fake(chain).set(stopped="yes")
    run = chain.submit()
    assert fake(chain).calls() <= Counter(sbatch=len(SHORT), squeue=2)
    before = fake(chain).calls()
    chain.status(run)
    assert fake(chain).calls() - before <= Counter(squeue=1, sacct=1)
    before = fake(chain).calls()
    chain.resume(run)
    assert fake(chain).calls() - before <= Counter(squeue=2)
    before = fake(chain).calls()
    chain.cancel(run)
    assert fake(chain).calls() - before <= Counter(squeue=3, scancel=1)


@pytest.mark.failure(7)
def test_links_wait_by_id_and_nothing_is_cancelled_by_an_estimate(base: Chain, chain: Chain) -> None:
    """Neither ``singleton``, which two chains of one name can lock, nor ``--deadline``, which cancels on a guess."""
    fake(chain).set(stopped="yes")
    own = beside(base, chain, continuation="chain", links=3)
    run = own.submit()
    calls = [json.loads(line) for line in (fake(chain).state / "calls").read_text().splitlines()]
    given = [one for name, *arguments in calls if name == "sbatch" for one in arguments if one.startswith("--dep")]
    assert len(given) == 3, "two links behind the first, and the first behind the corpus"
    assert all(re.fullmatch(r"--dependency=after(ok|any)(:\d+)+", one) for one in given), given
    scripts = list(own.stage(run, "cpt").root.glob("attempts/*/job*.sh"))
    assert len(scripts) == 3
    assert not any(word in path.read_text() for path in scripts for word in ("singleton", "--deadline"))


@pytest.mark.failure(17)
def test_a_site_that_forbids_options(base: Chain, chain: Chain) -> None:
    """The refusal names the option; the profile removes every one of them, and the chain goes through."""
    fake(chain).set(stopped="yes")
    run = chain.submit()
    script = next(chain.stage(run, "cpt").root.glob("attempts/*/job.sh")).read_text()
    emitted = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    forbidden = sorted(set(emitted) - {"job-name", "output", "chdir"})
    assert len(forbidden) > 5, emitted
    chain.cancel(run)
    fake(chain).set(forbidden=" ".join(forbidden))
    assert f"--{forbidden[0]} is not allowed here" in chain.overnight("submit", code=3).stderr
    fixed = beside(base, chain, remove=forbidden)
    run = fixed.submit()
    fixed.wait()
    assert all(fixed.store(run, name).seal.exists() for name in SHORT)


@pytest.mark.failure(38)
def test_nothing_of_ours_stays_alive(chain: Chain) -> None:
    """Between submission and the first job there is no process that has to do with the run."""
    fake(chain).set(stopped="yes")
    run = chain.submit_by_process()
    assert traces(chain.directory) == []
    fake(chain).set()
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.failure(40)
def test_cancel_while_nobody_answers(chain: Chain) -> None:
    fake(chain).set(stopped="yes")
    run = chain.submit()
    fake(chain).set(stopped="yes", scancel="down")
    assert "Unable to contact" in chain.overnight("cancel", run, code=4).stderr
    fake(chain).set(stopped="yes")
    chain.cancel(run)
    assert {job.row.state for job in chain.jobs()} == {JobState.CANCELLED}


@pytest.mark.failure(22, 33)
def test_requeued_under_its_id(chain: Chain, tmp_path: Path) -> None:
    """Requeued while it works: it goes on under its id from its save, and what waits for it keeps waiting.

    The first start hangs after its save, so that however slow this machine is it is at work when the requeue comes.
    """
    given: Any = fake(chain)
    hang = {"mishap": "hang", "mishap_step": 3, "mishap_starts": 1}
    own = Chain(given, tmp_path / "hangs", SHORT, settings={"cpt": {"save_every": 2, "options": hang}}, profile=PROFILE)
    own.gateway = chain.gateway
    own.fetch()
    run = own.submit()
    (cpt,) = [job.row.job_id for job in own.jobs() if job.stage == "cpt"]
    own.wait_until(lambda: own.events("cpt", "saved"), "the training to save")
    own.gateway.requeue(cpt)
    own.wait()
    own.assert_done_once(run)
    assert [line["restart"] for line in own.events("cpt", "start")] == [0, 1], own.story(run, "cpt")
    assert own.workers("cpt") == {cpt}
    assert [line["step"] for line in own.events("cpt", "resumed")] == [2]


@pytest.mark.failure(5)
def test_the_doctor_finds_and_removes(chain: Chain) -> None:
    """A job that can never start, one that no journal explains, the lock of a dead process; and then nothing more."""
    fake(chain).set(stopped="yes")
    run = chain.submit()
    assert chain.doctor(run) == {}
    path = fake(chain).state / "queue.json"
    value = json.loads(path.read_text())
    corpus, cpt = value["jobs"].values()
    stranger = {**cpt, "id": "77", "name": cpt["name"][:-6] + "zzzzzz", "reason": "Priority", "dependency": ""}
    corpus["state"], cpt["reason"] = "COMPLETED", "DependencyNeverSatisfied"
    path.write_text(json.dumps({**value, "jobs": {**value["jobs"], "77": stranger}}))
    lock = {"host": socket.gethostname(), "pid": 2**22 + 1, "born": "1", "time": 0}
    chain.workspace.run(run).lock.write_text(json.dumps(lock))
    found = chain.doctor(run, code=1)
    assert found["blocked job"]["command"] == f"scancel {cpt['id']}"
    assert found["unexplained job"]["command"] == "scancel 77"
    assert found["stale lock"]["command"].startswith("rm ")
    assert found["stage"]["command"] == f"overnight resume {run}"
    assert not any(finding["fixed"] for finding in found.values())
    assert all(finding["fixed"] == finding["is_safe"] for finding in chain.doctor(run, "--fix", code=1).values())
    assert {job.row.job_id for job in chain.jobs() if not job.row.state.is_final} == set()
    assert set(chain.doctor(run, code=1)) == {"stage"}
    fake(chain).set(squeue="down")
    assert set(chain.doctor(run, code=4)) == {"cluster silent"}
    fake(chain).set()
    chain.resume(run)
    chain.wait()
    assert chain.doctor(run) == {}


@pytest.mark.failure(13, 18)
def test_everything_submitted_is_reported_although_the_last_question_fails(chain: Chain) -> None:
    """squeue does not respond: a new run has nothing to look for there."""
    fake(chain).set(stopped="yes", squeue="down")
    done = chain.overnight("submit", code=0)
    assert done.stdout.count(" submitted ") == len(SHORT)
    assert "follow it: overnight status" in done.stdout
    assert done.stderr == ""
