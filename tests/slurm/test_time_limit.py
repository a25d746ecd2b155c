"""A time limit is not a failure: save before it, go on at the very next step, with the losses of a run without limits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.core import progress, verdict
from jobs.core.verdict import FailureClass, Outcome
from launch.config.profile_file import locate
from tests.support.chains import Chain, ended, wait_for_all
from tests.support.scripted_server import ScriptedServer
from tests.support.slurm import Slurm
from tests.support.stages import make_model

LIMIT = {"partition": "short", "time": "1", "nodes": 1, "cpus": 2}
STEPS = 84
TOY = {"steps": STEPS, "options": {"step_seconds": 0.7}, **LIMIT}  # 59 s of steps; a start may use about 20 s
STAGES = ("corpus", "pairs", "cpt", "sft")


@dataclass
class Trial:
    """A chain whose ``cpt`` hits its limit, and the same chain without limits, run here."""

    chain: Chain
    run: str

    @property
    def verdicts(self) -> list[verdict.Verdict]:
        return verdict.all_of(self.chain.stage(self.run, "cpt"))

    def losses(self) -> list[tuple[int, float]]:
        found = progress.read(self.chain.stage(self.run, "cpt").progress)
        return [(report.step, report.metrics["loss"]) for report in found if "loss" in report.metrics]

    def starts(self) -> list[dict[str, Any]]:
        return self.chain.events("cpt", "start")


def make(slurm: Slurm, directory: Path, settings: dict[str, Any], **profile: Any) -> Trial:
    chain = Chain(slurm, directory, STAGES, settings=settings, profile={"lead": "0:35", **profile})
    return Trial(chain, "")


def submit(trial: Trial) -> None:
    trial.chain.fetch()
    trial.run = trial.chain.submit()


def run_here(chain: Chain) -> Trial:
    """All stages on this machine, one after the other, without Slurm."""
    ended(chain.start("run", chain.pipeline, "--cluster", locate("local")), timeout=1500)
    return Trial(chain, chain.runs()[-1])


def unlimited(trial: Trial, directory: Path) -> Trial:
    """The same stages again, on this machine."""
    twin = trial.chain.clone(directory)
    for kept in twin.workspace.store.iterdir():
        if not kept.name.startswith(("download", "dataset")):
            shutil.rmtree(kept)
    return run_here(twin)


@pytest.fixture(scope="module")
def whole(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The same steps without limits, and without waiting in them."""
    trial = make(slurm, tmp_path_factory.mktemp("whole") / "work", {"cpt": {"steps": STEPS}})
    trial.chain.fetch()
    return run_here(trial.chain)


@pytest.fixture(scope="module")
def trials(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """All at once, both continuations and a chain that is too short: they sleep most of the time."""
    root = tmp_path_factory.mktemp("limits")
    long, short = ({"cpt": {**TOY, "steps": steps}, "sft": {"nodes": 1}} for steps in (STEPS, 40))
    found = {
        "requeue": make(slurm, root / "requeue", long),
        "chain": make(slurm, root / "chain", long, continuation="chain", links=5),
        "one link": make(slurm, root / "one", short, continuation="chain", links=1),
    }
    for trial in found.values():
        submit(trial)
    wait_for_all([trial.chain for trial in found.values()], timeout=400)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.2)


def assert_continued(trial: Trial, whole: Trial) -> None:
    """Ended before each limit with a save, began again at that step, lost and repeated nothing."""
    *before, last = trial.verdicts[: len(trial.starts())]
    assert len(before) >= 2, f"it should have needed three starts: {trial.verdicts}"
    assert {(one.outcome, one.failure) for one in before} == {(Outcome.CONTINUE, FailureClass.TIME_LIMIT)}
    assert all("the allocation ends in" in one.evidence for one in before)
    assert last.outcome is Outcome.DONE
    saved = [one.step for one in before]
    resumed = [line["step"] for line in trial.chain.events("cpt", "resumed")]
    assert saved == resumed == [line["step"] for line in trial.starts()[1:]]
    losses = trial.losses()
    assert [step for step, _ in losses] == list(range(1, len(losses) + 1)), "every step once, none lost"
    assert losses == whole.losses(), "bit by bit the losses of a run without limits"


@pytest.mark.failure(3, 29, 33)
def test_a_stage_three_times_its_limit_completes_under_one_job_id(trials: dict[str, Trial], whole: Trial) -> None:
    trial = trials["requeue"]
    assert_continued(trial, whole)
    jobs = {line["job"] for line in trial.starts()}
    assert len(jobs) == 1, "one stage, one Slurm job id"
    rows = {job.stage: job.row for job in trial.chain.jobs()}
    assert rows["cpt"].state == "COMPLETED"
    assert rows["sft"].state == "COMPLETED", "it waited by afterok through all the requeues"
    sft = trial.chain.events("sft", "start")
    assert len(sft) == 1
    assert sft[0]["time"] >= trial.chain.events("cpt", "sealed")[0]["time"]


@pytest.mark.failure(6)
def test_a_chain_of_links_where_requeue_is_forbidden(trials: dict[str, Trial], whole: Trial) -> None:
    trial = trials["chain"]
    assert_continued(trial, whole)
    links = [job.row for job in trial.chain.jobs() if job.stage == "cpt"]
    assert len(links) == 5
    assert [row.state.value for row in links[-1:]] == ["COMPLETED"], "the last link, on which sft waits, found the seal"
    spare = [row for row in links if row.job_id not in {line["job"] for line in trial.starts()}]
    assert spare, "one link at least had nothing left to do"
    for row in spare:
        assert row.end is not None
        assert row.start is not None
        assert row.end - row.start <= 5, "a spare link ends within seconds"
    assert next(job.row for job in trial.chain.jobs() if job.stage == "sft").state == "COMPLETED"


@pytest.mark.failure(8)
def test_a_last_link_without_a_seal_fails_and_resume_adds_links(trials: dict[str, Trial]) -> None:
    trial = trials["one link"]
    assert trial.verdicts[-1].outcome is Outcome.FAIL
    assert "resume adds links" in trial.verdicts[-1].evidence
    trial.chain.resume(trial.run)
    trial.chain.wait()
    trial.chain.resume(trial.run)
    trial.chain.wait()
    assert trial.chain.store(trial.run, "sft").seal.exists()
    assert [step for step, _ in trial.losses()] == list(range(1, 41))


@pytest.mark.full
@pytest.mark.train
@pytest.mark.failure(33, 34)
def test_a_language_model_over_three_limits_has_the_losses_of_an_uninterrupted_run(
    slurm: Slurm, tmp_path: Path
) -> None:
    """The real trainer: optimizer, scheduler, data order and random state come back with the save."""
    pytest.importorskip("trl", reason="the train extra is not installed")
    settings = {
        "cpt": {
            "backend": "trl", "steps": 3600, "batch_size": 8, "sequence_length": 128, "lr": 1e-3, "threads": 1, **LIMIT,
        },
        "sft": {"nodes": 1, "backend": "trl", "steps": 3, "sequence_length": 64},
    }  # fmt: skip
    trial = make(slurm, tmp_path / "work", settings, lead="0:15")
    make_model(trial.chain.directory / "tiny", dropout=0.1)
    submit(trial)
    trial.chain.wait(timeout=1500)
    assert_continued(trial, unlimited(trial, tmp_path / "whole"))
    assert trial.chain.store(trial.run, "sft").seal.exists()


def test_a_cancelled_job_stays_cancelled_and_a_requeued_one_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm would accept a requeue of a cancelled job; whoever typed scancel meant it. What was saved is kept."""
    slow = {"steps": 40, "save_every": 2, "options": {"step_seconds": 0.25}, "nodes": 1}
    trial = make(slurm, tmp_path / "work", {"cpt": slow, "sft": {"nodes": 1}})
    submit(trial)

    def job() -> str:
        return next(one.row.job_id for one in trial.chain.jobs() if one.stage == "cpt" and not one.row.state.is_final)

    wait_until(lambda: len(trial.losses()) >= 4)
    slurm.requeue(job())
    wait_until(lambda: len(trial.starts()) == 2 and len(trial.losses()) >= 8)
    assert trial.verdicts[0].failure is FailureClass.PREEMPTED
    slurm.run(["scancel", job()])
    trial.chain.wait()
    last = trial.verdicts[-1]
    assert (last.outcome, last.failure) == (Outcome.FAIL, FailureClass.CANCELLED)
    assert "resume continues" in last.evidence
    assert len(trial.starts()) == 2, "it was not revived"
    trial.chain.resume(trial.run)
    trial.chain.wait()
    assert trial.starts()[-1]["step"] >= 6
    assert trial.chain.store(trial.run, "sft").seal.exists()


@pytest.mark.train
def test_an_evaluation_goes_on_at_the_next_example_under_the_same_job_id(slurm: Slurm, tmp_path: Path) -> None:
    """A server takes a second for an answer; what is answered before the limit is not asked again."""
    pytest.importorskip("sacrebleu", reason="the train extra is not installed")
    server = ScriptedServer()

    def script(prompt: str, times: int) -> tuple[int, object]:
        time.sleep(1)
        return 200, "4"

    server.script = script
    tasks = {"translation": {"data": "pairs", "limit": 50}}
    engine = {"server": server.url, "model": "m", "at_once": 1}
    measured = {"backend": "trl", "checkpoint": None, "tasks": tasks, "engine": engine, **LIMIT}
    chain = Chain(
        slurm,
        tmp_path / "work",
        ("corpus", "pairs", "baseline"),
        settings={"baseline": measured},
        profile={"lead": "0:20"},
    )
    chain.fetch()
    run = chain.submit()
    try:
        chain.wait(timeout=400)
    finally:
        server.close()
    said = verdict.all_of(chain.stage(run, "baseline"))
    assert said[-1].outcome is Outcome.DONE, chain.log(run, "baseline")
    assert {(one.outcome, one.failure) for one in said[:-1]} == {(Outcome.CONTINUE, FailureClass.TIME_LIMIT)}
    began = chain.events("baseline", "start")
    assert len(began) == len(said) >= 2
    assert len({line["job"] for line in began}) == 1, "one stage, one Slurm job id"
    assert [line["step"] for line in began] == [0, *(one.step for one in said[:-1])]
    asked = [one["messages"][-1]["content"] for one in server.asked]
    assert len(asked) == len(set(asked)), "no example was asked twice"
    store = chain.store(run, "baseline")
    assert len((store.output / "samples.jsonl").read_text().splitlines()) == len(asked) <= 50
