"""The Python API on a real Slurm: submit, wait, what was measured; cancel and resume; a refusal in the cluster's words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import overnight
from tests.support.chains import Chain
from tests.support.slurm import Slurm

SOME = ("corpus", "baseline", "cpt", "sft", "final", "pairs", "prefs", "dpo")


def made(slurm: Slurm, directory: Path, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...]) -> Chain:
    chain = Chain(slurm, directory / "work", stages)
    for name, value in chain.environment.items():
        monkeypatch.setenv(name, value)
    overnight.pipeline(chain.pipeline).fetch(str(chain.profile))
    return chain


def test_submit_wait_and_what_was_measured(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = made(slurm, tmp_path, monkeypatch, SOME)
    wanted = overnight.pipeline(chain.pipeline).set("stages.dpo.steps", 12)
    plan = wanted.plan(str(chain.profile))
    assert {one.state for one in plan.stages.values()} == {"new"}
    submitted: list[overnight.StageStatus] = []
    run = wanted.submit(str(chain.profile), on_change=submitted.append)
    assert {one.stage: one.job for one in submitted} == {job.stage: job.row.job_id for job in chain.jobs()}

    told: list[str] = []
    status = run.wait(on_change=lambda stage: told.append(f"{stage.stage} {stage.state}"), timeout=200)
    assert status.is_done, str(status)
    assert {f"{name} sealed" for name in plan.stages} <= set(told)
    before, after = (run.evaluations[name]["perplexity.loss"] for name in ("baseline", "final"))
    assert after.value < before.value
    assert before.low is not None
    assert after.low is not None
    assert len(run.curve("dpo")) == 12
    assert run.model is not None
    assert run.model.stage == "dpo"
    assert (Path(run.model.path) / "model.json").is_file()

    again = wanted.submit(str(chain.profile))
    assert again.wait(timeout=20).is_done
    assert again.evaluations["final"]["perplexity.loss"] == after
    assert overnight.compare(run, again).same == ("baseline", "final")


def test_cancel_and_resume(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = made(slurm, tmp_path, monkeypatch, ("corpus", "cpt"))
    wanted = overnight.pipeline(chain.pipeline).set("stages.cpt.options", {"step_seconds": 0.5})
    run = wanted.submit(str(chain.profile))
    chain.wait_until(lambda: run.status().stage("cpt").state is overnight.State.RUNNING, "the training to start")
    assert run.cancel("cpt") == ("cpt",)
    assert not run.status().is_done
    assert run.wait(timeout=60).stage("cpt").state.is_over
    assert run.resume().wait(timeout=120).is_done


def test_a_submission_in_another_thread(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = made(slurm, tmp_path, monkeypatch, ("corpus",))
    found: list[overnight.RunHandle] = []
    worker = threading.Thread(
        target=lambda: found.append(overnight.pipeline(chain.pipeline).submit(str(chain.profile)))
    )
    worker.start()
    worker.join(60)
    assert found[0].wait(timeout=60).is_done


def test_a_refusal_is_raised_in_the_words_of_the_cluster(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = made(slurm, tmp_path, monkeypatch, ("corpus",))
    wanted = overnight.pipeline(chain.pipeline).set("resources", {"default": {"partition": "nowhere"}})
    with pytest.raises(overnight.OvernightError) as refused:
        wanted.submit(str(chain.profile))
    assert "nowhere" in str(refused.value)
