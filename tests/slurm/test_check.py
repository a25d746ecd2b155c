"""``overnight plan --check`` on a real Slurm: one table, every fault with its line, and no job made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.chains import Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

ROUTED = {"executors": {"default": "submitit", "training": "submitit"}}  # quicker to import


def checked(chain: Chain, code: int) -> list[dict[str, Any]]:
    said = json.loads(chain.overnight("plan", "--check", "--json", code=code).stdout)
    assert said["ok"] == (code == 0)
    findings: list[dict[str, Any]] = said["findings"]
    return findings


@pytest.mark.failure(17)
def test_everything_is_looked_at_and_no_job_is_made(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "work", ("corpus", "cpt"), profile=ROUTED)
    before = slurm.jobs()
    missing = checked(chain, 1)
    assert [one["what"] for one in missing if one["level"] == "fail"] == ["input"]
    chain.fetch()
    found = checked(chain, 0)
    assert {"limits", "input", "disk", "GPU memory", "workspace", "srun", "sbatch: corpus", "sbatch: cpt"} <= {
        one["what"] for one in found
    }
    (cpt,) = (one for one in found if one["what"] == "sbatch: cpt")
    assert "to start at" in cpt["text"]
    assert slurm.jobs() == before
    assert not chain.runs()


@pytest.mark.failure(17)
def test_faults_are_told_with_their_lines(slurm: Slurm, tmp_path: Path) -> None:
    profile: dict[str, Any] = {
        **ROUTED,
        "srun": ["--overlap-all"], "remove": ["wckey"], "constraint": "hbm", "secrets": ["NO_SUCH_KEY"], "partitions": {"batch": {"max_nodes": 1}},
    }  # fmt: skip
    chain = Chain(slurm, tmp_path / "work", ("corpus", "cpt"), profile=profile)
    chain.fetch()
    found = checked(chain, 1)
    bad = {one["what"]: one for one in found if one["level"] != "ok"}
    assert f"{chain.profile}:" in bad["limits"]["where"]
    assert "write nodes: 1" in bad["limits"]["text"]
    assert bad["srun"]["text"] == "`srun --help` has no --overlap-all: srun: without it"
    assert bad["srun"]["where"].startswith(f"{chain.profile}:")
    assert bad["remove"]["level"] == "warn"
    assert bad["remove"]["text"] == "no job of this plan gets --wckey: this entry has no effect"
    assert bad["secret"]["where"].startswith(str(chain.profile))
    assert "remove: [constraint]" in bad["sbatch: cpt"]["text"]
    assert bad["sbatch: cpt"]["where"].startswith(str(chain.profile))
    said = chain.overnight("submit", code=2).stderr
    assert "asks for 2 nodes; partition 'batch' allows 1: write nodes: 1" in said
    assert not chain.runs()
