"""A sweep on this machine: one chain after the other, what they share made once, a failed one passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.cli.main import main
from tests.support.chains import STAGES, make_inputs

TASKS = {"held": {"task": "perplexity", "split": "validation"}, "perplexity": {}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path / "ws"))
    make_inputs(tmp_path / "work", texts=20, rows=20)
    return tmp_path


def written(here: Path, **sweep: Any) -> str:
    final = {"kind": "evaluate", "backend": "toy", "checkpoint": "cpt", "tasks": TASKS}
    corpus = {**STAGES["corpus"], "split": {"validation": 0.2, "test": 0.2}}
    stages = {"corpus": corpus, "cpt": {**STAGES["cpt"], "steps": 6}, "final": final}
    value = {"name": "toy", "model": {"base": "./tiny"}, "stages": stages}
    path = here / "work" / "p.yaml"
    path.write_text(yaml.safe_dump({**value, "sweep": {"by": {"held.loss": "lower"}, **sweep}}, sort_keys=False))
    assert main(["fetch", str(path), "--cluster", "local"]) == 0
    return str(path)


def test_chains_one_after_the_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(here, over={"stages.cpt.lr": [0.5, 2.0]})
    capsys.readouterr()
    assert main(["run", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found["members"]] == ["done", "done"]
    assert sorted(one["rank"] for one in found["members"]) == [1, 2]
    assert len(list((here / "ws/store").glob("dataset-*"))) == 1
    assert len(list((here / "ws/store").glob("evaluation-*"))) == 2
    assert main(["report", found["family"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == found["best"]
    # What is done stays done.
    assert main(["resume", found["family"], "--json"]) == 0
    capsys.readouterr()


def test_what_fails_is_one_chain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(here, over={"stages.cpt.options.mishap": ["code", None], "stages.final.seed": [1, 2]})
    capsys.readouterr()
    assert main(["run", path]) == 1
    said = capsys.readouterr().out
    assert "not tried, its stage cpt failed in run" in said
    assert "2 of 4 chains done, 2 failed" in said
    assert "failed: cpt" in said


def test_a_sweep_is_not_for_slurm_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(here, over={"stages.cpt.lr": [0.5, "x"]})
    capsys.readouterr()
    assert main(["run", path]) == 2
    assert "stages.cpt.lr: expected a number, got 'x'" in capsys.readouterr().err
    assert not (here / "ws/families").exists()
    path = written(here, over={"stages.cpt.lr": [0.5, 1.0]})
    capsys.readouterr()
    assert main(["submit", path, "--cluster", "local"]) == 2
    assert "has no Slurm" in capsys.readouterr().err
    assert not (here / "ws/families").exists()
