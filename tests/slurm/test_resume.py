"""Resume, and several ``overnight`` at once: what is sealed is kept, what is queued is adopted, the rest is submitted."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.core import attempts, files
from tests.support.chains import ALL, SHORT, Chain, by_stage, ended, wrapper
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

SUBMITIT: dict[str, Any] = {"executors": {"default": "submitit", "training": "submitit"}}
HELD: dict[str, Any] = {**SUBMITIT, "sbatch": {"hold": True}}
"""Every job waits until the test releases it."""

BELOW_PAIRS = ("pairs", "sft", "dpo", "final")


def actions(said: dict[str, tuple[str, str | None]]) -> dict[str, str]:
    return {stage: action for stage, (action, _) in said.items()}


def slow_sbatch(directory: Path) -> tuple[dict[str, str], Path, Path]:
    """An sbatch that gets through when a file is there: environment, file that says that it was called, that file."""
    asked, answer = directory / "asked", directory / "answer"
    body = f'touch {asked}; until [ -e {answer} ]; do sleep 0.1; done; exec "$REAL" "$@"'
    return wrapper(directory / "bin", "sbatch", body), asked, answer


@pytest.mark.failure(4)
def test_twice_changes_nothing(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", ALL, profile={"sbatch": {"hold": True}})  # by both executors
    chain.fetch()
    run = chain.submit()
    before = [(job.row.job_id, job.row.name) for job in chain.jobs()]
    assert len(before) == len(ALL)
    queued = chain.resume(run)
    assert set(actions(queued).values()) == {"adopted"}
    assert {job for _, job in queued.values()} == {job for job, _ in before}
    chain.release()
    chain.wait()
    chain.assert_done_once(run)
    assert set(actions(chain.resume(run)).values()) == {"reused"}
    assert [(job.row.job_id, job.row.name) for job in chain.jobs()] == before


@pytest.mark.parametrize("kill_on_invalid_dep", [True, False])
@pytest.mark.failure(4, 5)
def test_after_a_failed_stage_only_that_one_and_those_below(
    slurm: Slurm, tmp_path: Path, kill_on_invalid_dep: bool
) -> None:
    chain = Chain(slurm, tmp_path / "chain", ALL, profile={**SUBMITIT, "kill_on_invalid_dep": kill_on_invalid_dep})
    chain.fetch()
    rows = chain.directory / "sft.jsonl"
    good = rows.read_text()
    planned = chain.start("submit", "--json", environment=(slow := slow_sbatch(tmp_path))[0])
    chain.wait_until(slow[1].exists, "sbatch to be called")
    rows.write_text(good.replace("After", "Before"))  # not what was planned: the stage refuses it
    slow[2].touch()
    run = str(json.loads(ended(planned).stdout)["run"])
    if kill_on_invalid_dep:
        chain.wait()
    else:
        chain.wait_until(lambda: _all_blocked(chain), "the jobs below to be blocked and the others to end")
    first = {stage: jobs[0].row for stage, jobs in by_stage(chain.jobs()).items()}
    assert first["pairs"].state == "FAILED"
    ends = {first[stage].state for stage in BELOW_PAIRS[1:]}
    assert ends == ({"CANCELLED"} if kill_on_invalid_dep else {"PENDING"})
    rows.write_text(good)
    said = actions(chain.resume(run))
    assert {stage for stage, action in said.items() if action == "reused"} == set(ALL) - set(BELOW_PAIRS)
    assert said["pairs"] == "submitted"
    assert {said[stage] for stage in BELOW_PAIRS[1:]} == {"submitted" if kill_on_invalid_dep else "adopted"}
    chain.wait()
    chain.assert_done_once(run, failed_before=["pairs"])


def _all_blocked(chain: Chain) -> bool:
    jobs = {job.stage: job.row for job in chain.jobs()}
    return jobs["sft"].reason == "DependencyNeverSatisfied" and all(
        row.state.is_final for stage, row in jobs.items() if stage not in BELOW_PAIRS[1:]
    )


@pytest.mark.failure(5)
def test_a_job_of_another_run_that_would_wait_for_ever_is_given_its_new_parent(slurm: Slurm, tmp_path: Path) -> None:
    """Run A's corpus is cancelled, its training blocked. Run B makes the corpus again and takes A's training over."""
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile={**HELD, "kill_on_invalid_dep": False})
    chain.fetch()
    first = chain.submit()
    corpus, cpt = chain.jobs()
    slurm.run(["scancel", corpus.row.job_id])
    second = chain.submit()
    made = by_stage(chain.jobs())
    assert [job.run for job in made["corpus"]] == [first, second]
    assert [job.row.job_id for job in made["cpt"]] == [cpt.row.job_id]
    assert chain.journal(second)[-1]["event"] == "adopted"
    chain.release()
    chain.wait()
    chain.assert_done_once(first)
    chain.assert_done_once(second)


@pytest.mark.failure(32)
def test_two_submissions_at_once_share_every_stage(slurm: Slurm, tmp_path: Path) -> None:
    stages = ("corpus", "pairs", "baseline", "cpt", "sft")
    chain = Chain(slurm, tmp_path / "chain", stages, profile=SUBMITIT)
    chain.fetch()
    said = [json.loads(ended(one).stdout) for one in [chain.start("submit", "--json") for _ in range(3)]]
    for stage in stages:
        answers = [one for value in said for one in value["stages"] if one["stage"] == stage]
        assert sorted(answer["action"] for answer in answers).count("submitted") == 1, answers
        assert len({answer["job"] for answer in answers if answer["job"]}) == 1, answers
    assert len(chain.jobs()) == len(stages)
    chain.wait()
    for value in said:
        chain.assert_done_once(value["run"])


def test_a_stage_that_another_run_submits_meanwhile_is_adopted(slurm: Slurm, tmp_path: Path) -> None:
    """The queue was asked before the other run's sbatch: that its job was not there then proves nothing."""
    chain = Chain(slurm, tmp_path / "chain", ("corpus", "pairs", "cpt"), profile=HELD)
    chain.fetch()
    chain.beside(("corpus",), profile=HELD).submit()
    slow, asked, answer = slow_sbatch(tmp_path)
    submit = chain.start("submit", "--json", environment=slow)  # adopts the corpus, and is slow with the pairs
    chain.wait_until(asked.exists, "sbatch to be called")
    other = chain.beside(("corpus", "cpt"), profile=HELD).submit()
    answer.touch()
    said = json.loads(ended(submit).stdout)
    assert [stage["action"] for stage in said["stages"]] == ["adopted", "submitted", "adopted"]
    chain.release()
    chain.wait()
    chain.assert_done_once(said["run"])
    chain.assert_done_once(other)
    assert {job.row.state for job in chain.jobs()} == {"COMPLETED"}


def test_a_submission_that_took_too_long_takes_what_others_have_made_of_it(slurm: Slurm, tmp_path: Path) -> None:
    """An sbatch on another login node hangs for longer than anybody waits, and gets through after all."""
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    slow, asked, answer = slow_sbatch(tmp_path)
    submit = chain.start("submit", "--json", environment=slow)
    chain.wait_until(asked.exists, "sbatch to be called")
    (run,) = chain.runs()
    intent = chain.store(run, "corpus").attempt(1)
    files.write_json(intent, {**files.read_json(intent), "host": "login2", "time": time.time() - 301})
    other = chain.submit()
    answer.touch()
    said = json.loads(ended(submit).stdout)
    assert {stage["action"] for stage in said["stages"]} <= {"adopted", "reused"}
    chain.wait()
    chain.assert_done_once(run)
    chain.assert_done_once(other)


@pytest.mark.failure(37)
def test_resume_from_two_processes_at_once(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    slow, asked, answer = slow_sbatch(tmp_path)
    submit = chain.start("submit", environment=slow)
    chain.wait_until(asked.exists, "sbatch to be called")
    submit.kill()
    ended(submit, code=-signal.SIGKILL)
    (run,) = chain.runs()
    answer.touch()
    # All meet the lock of the process that was killed; those that come too late get an error.
    resumes = [ended(one, code=None) for one in [chain.start("resume", run) for _ in range(4)]]
    assert {one.returncode for one in resumes} <= {0, 2}
    assert 0 in {one.returncode for one in resumes}
    assert all("another overnight" in one.stderr for one in resumes if one.returncode)
    chain.wait()
    chain.assert_done_once(run)
    assert len(chain.jobs()) == len(SHORT)


def test_a_chain_of_jobs_cut_off_between_two_links(slurm: Slurm, tmp_path: Path) -> None:
    """The first of three links is in the queue; resume adds the others, and what depends on the stage waits for the
    last."""
    stages, settings = (*SHORT, "baseline"), {"baseline": {"checkpoint": "cpt"}}
    profile = {**HELD, "continuation": "chain", "links": 3}
    chain = Chain(slurm, tmp_path / "chain", stages, settings=settings, profile=profile)
    chain.fetch()
    calls, stop = tmp_path / "calls", tmp_path / "third"
    body = f'echo >> {calls}; [ $(wc -l < {calls}) -lt 3 ] && exec "$REAL" "$@"; touch {stop}; sleep 600'
    submit = chain.start("submit", environment=wrapper(tmp_path / "bin", "sbatch", body))
    chain.wait_until(stop.exists, "the sbatch of the second link")
    submit.kill()
    ended(submit, code=-signal.SIGKILL)
    _kill_sleepers(str(tmp_path / "bin" / "sbatch"))
    (run,) = chain.runs()
    said = chain.resume(run)
    assert actions(said) == {"corpus": "adopted", "cpt": "adopted", "baseline": "submitted"}
    jobs = by_stage(chain.jobs())
    assert [job.row.name.rpartition("-")[2] for job in jobs["cpt"][1:]] == ["1", "2"]
    assert said["cpt"][1] == jobs["cpt"][2].row.job_id
    assert f"afterok:{said['cpt'][1]}" in jobs["baseline"][0].row.dependency
    chain.release()
    chain.wait()
    chain.assert_done_once(run)
    assert {job.row.state for job in chain.jobs()} == {"COMPLETED"}


def _kill_sleepers(script: str) -> None:
    """End the wrapper of an sbatch that was killed with its terminal, as a closed login session does."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if script in (entry / "cmdline").read_bytes().decode().split("\0"):
                os.killpg(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def test_another_run_waits_until_a_chain_of_jobs_is_whole(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile={**HELD, "continuation": "chain", "links": 2})
    chain.fetch()
    calls, asked, answer = (tmp_path / name for name in ("calls", "asked", "answer"))
    body = (
        f"echo >> {calls}; if [ $(wc -l < {calls}) -eq 3 ]; then touch {asked}; "
        f'until [ -e {answer} ]; do sleep 0.1; done; fi; exec "$REAL" "$@"'
    )
    submit = chain.start("submit", "--json", environment=wrapper(tmp_path / "bin", "sbatch", body))
    chain.wait_until(asked.exists, "the sbatch of the second link")
    other = chain.start("submit", "--json")
    chain.wait_until(lambda: len([run for run in chain.runs() if chain.has_plan(run)]) == 2, "the second run")
    answer.touch()
    mine, theirs = (json.loads(ended(one).stdout)["stages"] for one in (submit, other))
    assert {stage["stage"]: stage["job"] for stage in mine} == {stage["stage"]: stage["job"] for stage in theirs}
    chain.release()
    chain.wait()
    assert {job.row.state for job in chain.jobs()} == {"COMPLETED"}
    for run in chain.runs():
        chain.assert_done_once(run)


def test_an_attempt_of_another_user_is_not_judged(slurm: Slurm, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file another user's")
    chain = Chain(slurm, tmp_path / "chain", ("corpus",), profile=HELD)
    chain.fetch()
    run = chain.submit()
    slurm.scancel_all()
    current = attempts.current(chain.store(run, "corpus"))
    assert current is not None
    os.chown(chain.store(run, "corpus").attempt(current.number), 12345, -1)
    refused = chain.overnight("submit", code=2)
    assert "user 12345" in refused.stderr
