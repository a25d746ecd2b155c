"""What ``overnight plan --scripts`` shows: the scripts of a submission, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.config.profile_file import read_profile
from launch.plan.model import Plan, Planned
from launch.render import preview
from launch.runs.rundir import Run
from tests.support.made_runs import make, stage


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "ws", stage("cpt", steps=60), stage("sft", "cpt", steps=60))


def planned(run: Run, plan: Plan) -> Planned:
    files = run.workspace.root.parent / "files"
    return Planned(read_pipeline(files / "waits.yaml"), read_profile(files / "site.yaml"), run.workspace, plan)


@pytest.mark.parametrize("executor", ["submitit", "nemo_run"])
def test_scripts_are_those_of_a_submission_and_nothing_is_written(run: Run, executor: str) -> None:
    pytest.importorskip(executor)
    before = sorted(run.workspace.root.rglob("*"))
    plan = Plan("waits", (stage("cpt", executor=executor), stage("sft", "cpt", executor=executor)))
    shown = preview.preview(planned(run, plan))
    assert sorted(run.workspace.root.rglob("*")) == before
    assert shown["sft"]["edges"] == ["sbatch --parsable --dependency=afterok:<cpt> job.sh"]
    assert "#SBATCH --job-name=on-RUN-sft-ATTEMPT" in shown["sft"]["job.sh"]
    assert f"{run.workspace.root}/runs/RUN/stages/sft/attempts/ATTEMPT/node.sh" in shown["sft"]["job.sh"]
    text = "\n".join(preview.lines(shown))
    assert "======== sft: host.sh ========" in text
    assert "======== sft: job.sh ========\n# sbatch --parsable --dependency=afterok:<cpt> job.sh\n#!/bin/bash" in text


def test_edges_of_a_chain_of_jobs() -> None:
    assert preview.edges(
        stage("cpt", continuation="chain"), Profile.read({"name": "site", "executor": "slurm", "links": 3})
    ) == [
        "sbatch --parsable job.sh",
        "sbatch --parsable --dependency=afterany:<cpt link 0> job-1.sh",
        "sbatch --parsable --dependency=afterany:<cpt link 0>:<cpt link 1> job-2.sh",
    ]
