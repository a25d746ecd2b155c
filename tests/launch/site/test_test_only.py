"""What ``sbatch --test-only`` says of a stage as a finding: the same for ``plan --check``, ``profile check`` and the probe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.runs.rundir import Run
from launch.site import test_only
from launch.site.finding import Finding, Level
from launch.slurm.client import Answer, Gateway
from tests.sites.golden import HERE, plan_of

SAID = "sbatch: error: Batch job submission failed: Invalid feature specification"


class Cluster:
    """Accepts every script without ``--constraint=hbm``; ``says`` comes with it."""

    def __init__(self, says: str = "") -> None:
        self.says = says
        self.scripts: list[Path] = []

    def test_only(self, script: Path) -> str:
        self.scripts.append(script)
        if "--constraint=hbm" in script.read_text():
            raise RejectedByCluster("no node has this feature", command=["sbatch"], exit_code=1, stderr=f"{SAID}\n")
        return self.says

    def ask(self, command: list[str], *, timeout: float) -> Answer:
        return Answer(tuple(command), 0, "hbm80g\n", "", 0.0)


class Silent(Cluster):
    def test_only(self, script: Path) -> str:
        raise ClusterUnreachable("sbatch did not answer", command=("sbatch",), since=9.0, hint="try again")


def finding(tmp_path: Path, cluster: Cluster, more: str = "", pipeline: str = "") -> Finding:
    """Of the training job of a small chain; ``pipeline``: what its stage says beside, else there is no pipeline."""
    (tmp_path / "lab.yaml").write_text(f'executor: slurm\nresources: {{default: {{time: "5"}}}}\n{more}')
    profile = read_profile(tmp_path / "lab.yaml")
    run = Run(Workspace(tmp_path / "work"), "abcde")
    if not pipeline:
        stage = test_only.stage_of(
            profile.profile, "cpt", profile.profile.resources_for("cpt"), "submitit", "toy", sys.executable
        )
        return test_only.finding("sbatch: cpt", run, stage, profile, cluster, where="lab.yaml:1:1")
    file = tmp_path / "p.yaml"
    file.write_text((HERE / "pipeline.yaml").read_text().replace("nodes: 2", f"nodes: 2, {pipeline}"))
    stage = plan_of(profile.profile, file).stage("cpt")
    return test_only.finding("sbatch: cpt", run, stage, profile, cluster, pipeline=read_pipeline(file))


def test_accepted(tmp_path: Path) -> None:
    said = "sbatch: Job 7 to start at 2026-01-01T00:00:00 on nodes n1 in partition gpu"
    cluster = Cluster(said)
    found = finding(tmp_path, cluster)
    assert (found.level, found.what, found.text) == (Level.OK, "sbatch: cpt", said.removeprefix("sbatch: "))
    assert finding(tmp_path, Cluster(), "partition: gpu\n").text == "accepted by partition gpu"
    assert finding(tmp_path, Cluster()).text == "accepted by partition (the default one)"
    assert not cluster.scripts[0].exists(), "nothing is left behind"


@pytest.mark.failure(17)
def test_a_refusal_names_the_line_and_the_entry(tmp_path: Path) -> None:
    found = finding(tmp_path, Cluster(), "constraint: hbm\n")
    assert (found.level, found.where) == (Level.FAIL, f"{tmp_path}/lab.yaml:3:13")
    assert found.text == (
        f"no node has this feature ({SAID}): --constraint=hbm comes from constraint, {tmp_path}/lab.yaml:3:13; "
        f"this cluster has features: hbm80g; nearest: hbm80g; to change it: constraint: NAME   in {tmp_path}/lab.yaml; "
        "to leave it out: remove: [constraint]   in the profile"
    )
    found = finding(tmp_path, Cluster(), pipeline="constraint: hbm")
    assert found.where.startswith(f"{tmp_path}/p.yaml:6:")
    assert "--constraint=hbm comes from stages.cpt.constraint" in found.text


def test_no_answer(tmp_path: Path) -> None:
    found = finding(tmp_path, Silent())
    assert (found.level, found.text, found.where) == (Level.FAIL, "sbatch did not answer; try again", "lab.yaml:1:1")


@pytest.mark.failure(17)
def test_the_words_of_the_site_are_shown(tmp_path: Path) -> None:
    """As submit shows them: with --test-only Slurm's last line says nothing ("Unspecified error")."""

    class Site(Cluster):
        def test_only(self, script: Path) -> str:
            said = "sbatch: error: No reservation for this job\nsbatch: error: --comment is required\n"
            answer = Answer(("sbatch",), 1, "", f"{said}allocation failure: Unspecified error\n", 0.0)
            raise Gateway._error(answer, "sbatch --test-only refused it")

    found = finding(tmp_path, Site())
    assert found.text == (
        "sbatch --test-only refused it: the site's own rules: No reservation for this job; --comment is required"
    )
