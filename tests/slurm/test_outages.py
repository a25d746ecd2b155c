"""What a real Slurm does to jobs when machines and daemons go: on a cluster of its own, which is broken for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core import progress, verdict
from jobs.core.verdict import FailureClass, Outcome, Verdict
from launch.slurm.devcluster import packages
from launch.slurm.devcluster.config import CLUSTER_NAME
from tests.slurm.soak import cluster_of
from tests.slurm.soak_faults import Site
from tests.support.chains import SHORT, Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

SUBMITIT = {"executors": {"default": "submitit", "training": "submitit"}}
LONG = {"nodes": 1, "steps": 40, "save_every": 1, "options": {"step_seconds": 0.5}}
"""Some 20 s of work: a test waits for its first save, and strikes."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A cluster with accounting, and with memory limits where this machine lets us set them."""
    missing = packages.missing(True)
    if missing:
        pytest.skip(f"Debian packages not installed: {' '.join(missing)}")
    directory = Path(tempfile.mkdtemp(prefix="overnight-outage-"))
    try:
        with cluster_of(directory / "slurm") as found:
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def slurm(site: Site) -> Slurm:
    return site.slurm


def make(slurm: Slurm, directory: Path, cpt: dict[str, Any], **profile: Any) -> Chain:
    chain = Chain(slurm, directory / "work", SHORT, settings={"cpt": cpt}, profile={**SUBMITIT, **profile})
    chain.fetch()
    return chain


def verdicts(chain: Chain, run: str) -> list[Verdict]:
    return verdict.all_of(chain.stage(run, "cpt"))


def wait_for_a_save(chain: Chain, start: int = 1) -> dict[str, Any]:
    """Until start number ``start`` of the training has saved; what it noted when it began."""

    def has_saved() -> bool:
        starts, saves = chain.events("cpt", "start"), chain.events("cpt", "saved")
        return len(starts) == start and bool(saves) and saves[-1]["restart"] == starts[-1]["restart"]

    chain.wait_until(has_saved, f"start {start} to save", timeout=900)
    return chain.events("cpt", "start")[-1]


def assert_went_on(chain: Chain, run: str) -> None:
    """One job did all the work, each start from the newest save before it, and nothing is left."""
    chain.assert_done_once(run)
    assert len(chain.workers("cpt")) == 1
    saved = 0
    for line in chain.events("cpt"):
        if line["event"] == "saved":
            saved = line["step"]
        elif line["event"] == "resumed":
            assert line["step"] == saved, chain.story(run, "cpt")


def take_the_nodes(slurm: Slurm) -> str:
    """A job of higher priority on every node; its id."""
    log = slurm.directory / "log" / "other.log"
    argv = [
        "sbatch",
        "--parsable",
        "-p",
        "batch",
        "-N4",
        "--exclusive",
        "--time=1",
        f"--output={log}",
        "--wrap=sleep 2",
    ]
    return slurm.run(argv).stdout.strip()


@pytest.mark.full
@pytest.mark.failure(22, 33)
def test_preempted_at_once(slurm: Slurm, tmp_path: Path) -> None:
    chain = make(slurm, tmp_path, LONG, partition="preempt")
    run = chain.submit()
    wait_for_a_save(chain)
    take_the_nodes(slurm)
    chain.wait()
    assert_went_on(chain, run)
    first, last = verdicts(chain, run)
    assert (first.outcome, first.failure) == (Outcome.CONTINUE, FailureClass.PREEMPTED), chain.story(run, "cpt")
    assert last.outcome is Outcome.DONE


@pytest.mark.full
@pytest.mark.failure(29, 33)
def test_preempted_with_grace_saves_first(slurm: Slurm, tmp_path: Path) -> None:
    """Saves only when it is told to: what is there after the grace time was saved in it."""
    chain = make(slurm, tmp_path, {**LONG, "save_every": 1000}, partition="preempt")
    run = chain.submit()
    chain.wait_until(lambda: progress.latest(chain.stage(run, "cpt").progress), "the first step", timeout=900)
    slurm.run(["scontrol", "update", "partitionname=preempt", "gracetime=30"])
    try:
        take_the_nodes(slurm)
        chain.wait()
    finally:
        slurm.run(["scontrol", "update", "partitionname=preempt", "gracetime=0"])
    assert_went_on(chain, run)
    (save,) = chain.events("cpt", "saved")
    assert [line["step"] for line in chain.events("cpt", "resumed")] == [save["step"]], chain.story(run, "cpt")


@pytest.mark.full
@pytest.mark.failure(8)
def test_out_of_memory_by_the_kernel(site: Site, slurm: Slurm, tmp_path: Path) -> None:
    if not site.has_cgroups:
        pytest.skip("memory limits need root and the memory controller of cgroups v1")
    resources = {"default": {"nodes": 1, "cpus": 2, "mem": "300M", "time": "0:30:00"}}
    chain = make(slurm, tmp_path, {"nodes": 1, "save_every": 1, "options": {"mishap": "greed"}}, resources=resources)
    run = chain.submit()
    chain.wait()
    (only,) = verdicts(chain, run)
    assert (only.outcome, only.failure) == (Outcome.FAIL, FailureClass.OUT_OF_MEMORY), chain.story(run, "cpt")
    assert "oom" in only.evidence.lower()
    assert not chain.store(run, "cpt").seal.exists()
    stages = {one["stage"]: one for one in chain.status(run)["stages"]}
    assert stages["cpt"]["state"] == "failed"


@pytest.mark.failure(10, 18)
def test_a_job_that_the_controller_forgot_is_lost_and_made_again(slurm: Slurm, tmp_path: Path) -> None:
    """The controller dies after it has accepted jobs and before it has written them down (it does every 5 s)."""
    chain = make(slurm, tmp_path, {"nodes": 1}, sbatch={"hold": True})
    state, before = slurm.directory / "state", tmp_path / "state"
    slurm.cluster.kill("slurmctld")
    shutil.copytree(state, before)
    slurm.cluster.start("slurmctld")
    run = chain.submit()
    old = {job.row.job_id for job in chain.jobs()}
    assert len(old) == len(SHORT)
    slurm.cluster.kill("slurmctld")
    shutil.rmtree(state)
    shutil.copytree(before, state)
    slurm.cluster.start("slurmctld")
    assert not chain.jobs(), "it has forgotten them"
    assert {one["state"] for one in chain.status(run)["stages"]} <= {"lost", "skipped"}
    assert {action for action, _ in chain.resume(run).values()} == {"submitted"}
    chain.release()
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.full
@pytest.mark.failure(18, 20)
def test_without_the_accounting_everything_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    chain = make(slurm, tmp_path, LONG)
    slurm.cluster.kill("slurmdbd")
    try:
        run = chain.submit()
        wait_for_a_save(chain)
        assert chain.status(run)["stages"][1]["state"] == "running"
        chain.gateway.requeue(chain.events("cpt", "start")[-1]["job"])
        chain.wait()
        assert_went_on(chain, run)
        assert chain.status(run)["done"]
    finally:
        slurm.cluster.start("slurmdbd")


@pytest.mark.full
@pytest.mark.failure(22, 42)
def test_power_cuts_are_judged_by_the_next_start(slurm: Slurm, tmp_path: Path) -> None:
    """Cut twice on one node: charged to node failures without a verdict of the job, then excluded the node."""
    chain = make(slurm, tmp_path, LONG)
    run = chain.submit()
    cut = []
    for number in (1, 2):
        node = wait_for_a_save(chain, number)["nodes"][0]
        cut.append(node)
        slurm.cluster.kill(node)
        slurm.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
        slurm.cluster.start(node)
    chain.wait()
    assert_went_on(chain, run)
    found = [(one.failure, one.nodes) for one in verdicts(chain, run) if one.judged_by]
    assert found == [(FailureClass.NODE_FAILURE, (node,)) for node in cut], chain.story(run, "cpt")
    if cut[0] == cut[1]:
        assert chain.events("cpt", "start")[-1]["nodes"] != [cut[0]]


@pytest.mark.full
@pytest.mark.failure(22)
def test_a_node_that_is_only_taken_for_dead(site: Site, slurm: Slurm, tmp_path: Path) -> None:
    """Its job works on there while Slurm starts it elsewhere: the old one publishes nothing any more."""
    from tests.slurm.soak_checks import two_writers
    from tests.slurm.soak_faults import back, frozen

    chain = make(slurm, tmp_path, LONG)
    run = chain.submit()
    node = wait_for_a_save(chain)["nodes"][0]
    with frozen(site, node):
        slurm.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
        wait_for_a_save(chain, 2)
    back(site, node)
    chain.wait()
    chain.assert_done_once(run)
    assert not two_writers(chain.events("cpt")), chain.story(run, "cpt")


@pytest.mark.full
@pytest.mark.failure(11)
def test_an_id_with_the_name_of_its_cluster(slurm_accounting: Slurm, tmp_path: Path) -> None:
    """With ``--clusters`` sbatch answers ``id;cluster``; the database tells each ``-M`` where that is."""
    chain = make(slurm_accounting, tmp_path, {"nodes": 1}, clusters=CLUSTER_NAME)
    run = chain.submit()
    assert "--clusters" in next(chain.workspace.runs.glob("*/stages/cpt/attempts/*/job.sh")).read_text()
    chain.wait()
    chain.assert_done_once(run)


@pytest.mark.full
@pytest.mark.failure(31)
def test_a_signal_to_the_work_makes_it_save_at_the_next_boundary(slurm: Slurm, tmp_path: Path) -> None:
    """USR2 to all processes of the step, as Slurm sends it before an end: nobody dies of it, the step at hand is made
    whole and saved, and the next start goes on from there."""
    chain = make(slurm, tmp_path, {**LONG, "save_every": 1000})
    run = chain.submit()
    chain.wait_until(lambda: progress.latest(chain.stage(run, "cpt").progress), "the first step", timeout=900)
    slurm.run(["scancel", "--signal=USR2", chain.events("cpt", "start")[-1]["job"]])
    chain.wait()
    assert_went_on(chain, run)
    (save,) = chain.events("cpt", "saved")
    first, last = verdicts(chain, run)
    assert (first.outcome, first.failure, first.step) == (Outcome.CONTINUE, FailureClass.TIME_LIMIT, save["step"])
    assert [line["step"] for line in chain.events("cpt", "resumed")] == [save["step"]], chain.story(run, "cpt")
    assert last.outcome is Outcome.DONE
