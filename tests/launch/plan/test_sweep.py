"""Variants of a pipeline: every combination once, equal stages counted once, the world looked at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.cli.main import main
from launch.config.profile_file import locate, read_profile
from launch.plan import gather as facts
from launch.plan import sweep
from tests.support.chains import STAGES, make_inputs

PIPELINE = {
    "name": "toy",
    "model": {"base": "./tiny"},
    "stages": {name: STAGES[name] for name in ("corpus", "cpt", "sft", "pairs")},
}
AXES = ["stages.cpt.lr=0.1,0.2,0.3", "stages.sft.steps=4, 8"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    make_inputs(tmp_path / "work", texts=3, rows=5)
    path = tmp_path / "work" / "p.yaml"
    path.write_text(json.dumps(PIPELINE))
    return path


def test_combinations() -> None:
    found = sweep.combinations(AXES)
    assert len(found) == 6
    assert found[1] == ("stages.cpt.lr=0.1", "stages.sft.steps=8")
    for wrong in ("stages.cpt.lr", "stages.cpt.lr=", "stages.cpt.lr=,"):
        with pytest.raises(InputError, match="write --sweep"):
            sweep.combinations([wrong])
    with pytest.raises(InputError, match="combinations are more than"):
        sweep.combinations(["a=" + ",".join("x" * 400)] * 2)


def test_the_world_is_looked_at_once(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    real = facts.gather

    def gather(*given):
        looked.append(given)
        return real(*given)

    monkeypatch.setattr(facts, "gather", gather)
    profile, workspace = read_profile(locate("devcluster")), Workspace(pipeline.parent / "w")
    found = list(sweep.plans(pipeline, (), AXES, profile, workspace))
    assert len(looked) == 1
    assert len({variant.plan.stage("cpt").fingerprint for variant in found}) == 3
    assert len({variant.plan.stage("sft").fingerprint for variant in found}) == 6
    assert len({variant.plan.stage("corpus").fingerprint for variant in found}) == 1
    # What changes what is seen of the world is looked at again.
    list(sweep.plans(pipeline, (), ["stages.corpus.min_chars=1,2"], profile, workspace))
    assert len(looked) == 3


def test_the_command_counts_jobs(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", str(pipeline), "--cluster", "devcluster", "--workspace", str(tmp_path / "w")]
    assert main([*given, "--sweep", AXES[0], "--sweep", AXES[1]]) == 0
    said = capsys.readouterr().out
    assert "6 variants, 11 jobs" in said  # 1 corpus, 1 pairs, 3 cpt, 6 sft
    assert main([*given, "--sweep", AXES[0], "--json"]) == 0
    assert [one["set"] for one in json.loads(capsys.readouterr().out)["variants"]][2] == ["stages.cpt.lr=0.3"]
    assert main([*given, "--sweep", "stages.cpt.lr=much"]) == 2
    assert "--set stages.cpt.lr=much" in capsys.readouterr().err
