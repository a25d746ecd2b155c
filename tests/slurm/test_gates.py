"""A gate that is missed, one that is undecided, and one that is only told, on a real Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.core import verdict
from tests.support.chains import Chain, wait_for_all
from tests.support.slurm import Slurm
from tests.support.stages import make_model

pytestmark = pytest.mark.train

TASKS: dict[str, Any] = {"preferences": {"data": "prefs", "limit": 40}}
EVALUATION: dict[str, Any] = {"backend": "trl", "checkpoint": "base", "tasks": TASKS, "threads": 1}


def final(**keys: Any) -> dict[str, Any]:
    return {"prefs": {"split": {"test": 0.3}}, "baseline": EVALUATION, "final": {**EVALUATION, **keys}}


def test_what_follows_a_gate(slurm: Slurm, tmp_path: Path) -> None:
    """The model is the same before and after, so that nothing rises; a random one prefers nothing."""
    pytest.importorskip("trl", reason="the train extra is not installed")
    stages = ("prefs", "baseline", "final")
    rises = {"gate": {"accuracy": {"must": "rise"}}}
    undecided = Chain(slurm, tmp_path / "work", stages, settings=final(**rises))
    make_model(undecided.directory / "tiny")
    missed = undecided.beside(stages, settings=final(gate={"accuracy": {"at_least": 0.99}}))
    told = undecided.beside(stages, settings=final(**rises, undecided="go"))
    undecided.fetch()
    runs = {"undecided": undecided.submit(), "missed": missed.submit(), "told": told.submit()}
    wait_for_all([undecided, missed, told])

    classes = {"undecided": "gate_undecided", "missed": "quality_gate"}
    for name, failure in classes.items():
        (said,) = verdict.all_of(undecided.stage(runs[name], "final"))
        assert (said.outcome.value, said.failure.value) == ("fail", failure)
        shown = undecided.overnight("why", runs[name], code=1).stdout
        assert f"class     {failure}" in shown
        assert "40 examples" in shown
        assert not undecided.store(runs[name], "final").seal.exists()
    assert undecided.store(runs["told"], "final").seal.exists()
    assert "must rise: UNDECIDED" in undecided.overnight("report", runs["told"]).stdout
    assert "at_least 0.99: MISSED" in undecided.overnight("report", runs["missed"], code=None).stdout
