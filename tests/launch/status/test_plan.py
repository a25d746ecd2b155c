"""The plan as a table: what is there already, how many segments, what it costs at most, and the scripts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core.verdict import FailureClass, Outcome
from launch.config.profile import Profile, Resources
from launch.plan.model import FetchedFacts, Plan, PlannedInput, PlannedStage
from launch.runs.rundir import Run
from launch.status.plan import expected, expected_seconds, lines, segments, states
from tests.support.made_runs import make, said, sealed, stage, started, store_of, submitted


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "ws", stage("cpt", steps=60), stage("sft", "cpt", steps=60), stage("dpo", "sft"))


def profile(**values: object) -> Profile:
    return Profile.read({"name": "site", "executor": "slurm", "lead": "2:00", **values})


def test_states_of_everything_that_can_be_there(run: Run) -> None:
    plan = run.plan()
    assert states(plan, run.workspace) == {"cpt": "new", "sft": "new", "dpo": "new"}
    sealed(run, "cpt")
    submitted(run, "sft", "12")
    submitted(run, "dpo", "13")
    started(run, "dpo", "13")
    said(run, "dpo", "13", Outcome.FAIL, FailureClass.CODE_ERROR)
    found = states(plan, run.workspace)
    assert found["cpt"] == "sealed"
    assert found["sft"] == f"submitted by run {run.id}"
    assert found["dpo"] == f"new (run {run.id}: an error in the code)"
    (store_of(run, "cpt").output / "text").write_text("d")
    damaged = states(plan, run.workspace)["cpt"]
    assert damaged == "damaged (text has 1 bytes, sealed with 4): will be made again"
    assert store_of(run, "cpt").seal.exists(), "planning changes nothing"


def test_local_runs_that_live_and_that_died(run: Run) -> None:
    submitted(run, "cpt", f"local-{os.uname().nodename}-{os.getpid()}", carrier="local")
    submitted(run, "sft", f"local-{os.uname().nodename}-{2**22 + 1}", carrier="local")
    found = states(run.plan(), run.workspace)
    assert found["cpt"] == f"running here in run {run.id}"
    assert found["sft"] == f"new (run {run.id} was cut off)"


def text(plan: Plan, on: Profile, run: Run) -> str:
    seen = states(plan, run.workspace), expected(plan, run.workspace)
    return "\n".join(lines(plan, on, run.workspace, *seen, "overnight fetch my.yaml"))


def base_model(planned: PlannedStage, present: bool) -> Plan:
    entry = PlannedInput("base", "download", "gguf", "ab" * 32, is_job=False)
    item = FetchedFacts("base", "pypi:some-model==1.0", "gguf", "ab" * 32, present)
    return Plan("waits", (replace(planned, inputs={"source": entry}),), (item,))


def test_missing_input_and_how_to_get_it(run: Run) -> None:
    plan = base_model(stage("cpt"), present=False)
    assert states(plan, run.workspace) == {"cpt": "missing input"}
    assert states(base_model(stage("cpt"), present=True), run.workspace) == {"cpt": "new"}
    shown = text(plan, profile(), run)
    assert shown.endswith("not fetched yet: base (pypi:some-model==1.0)\nnext: overnight fetch my.yaml")


def test_segments_by_the_pace_of_an_earlier_run(run: Run) -> None:
    from launch.status.plan import _past

    path = run.paths.stage("cpt").progress
    path.parent.mkdir(parents=True)
    began = time.time()
    lines = [{"time": began + 30 * step, "step": step, "total": 60, "metrics": {}} for step in range(1, 6)]
    passes = [{"time": began + 200 + at, "step": at, "total": 9, "phase": "validation"} for at in range(1, 4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *passes]), encoding="utf-8")
    past = _past(run.workspace)
    again = stage("cpt", steps=120)
    assert expected_seconds(again, past) == pytest.approx(3600)
    # 10:00 less the lead of 2:00 is 480 s a segment.
    assert segments(again, profile(), expected_seconds(again, past)) == "8"
    assert expected_seconds(stage("cpt", steps=120, seconds=9.0), past) is None, "other settings, other pace"
    assert expected_seconds(stage("cpt", steps=120, nodes=2), past) is None
    assert segments(again, profile(), None) == "1+"
    assert segments(stage("cpt", resumable=False), profile(), 3600.0) == "1"
    assert segments(stage("cpt", executor="local"), profile(), None) == ""
    assert segments(stage("cpt", limit="1:00"), profile(), 3600.0) == "1+", "the lead is longer than the limit"


def test_totals_and_warnings(run: Run) -> None:
    gpus = Resources(nodes=2, gpus_per_node=8, time="3:00:00")
    plan = Plan(
        "waits",
        (
            replace(stage("cpt", continuation="chain"), resources=gpus),
            replace(stage("sft", "cpt", resumable=False), resources=gpus.changed(nodes=1)),
            replace(stage("convert", "sft"), inserted=True, kind="convert"),
        ),
    )
    shown = text(plan, profile(continuation="chain", links=3), run)
    # 3 links of 16 GPUs and one job of 8, three hours each.
    assert "3 stages to submit as 5 jobs, 0 not needed again; at most 168.0 GPU-hours" in shown
    assert "convert (inserted)" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line}
    assert rows["cpt"].split()[4:11] == ["2", "x", "1", "16", "3:00:00", "1+", "new"]


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ({}, "at most 12.0 GPU-hours, counting"),
        ({"gpu": 2.0, "big": 3.5}, "at most 12.0 GPU-hours for 36.00 in the unit of cost_per_gpu_hour, counting"),
        (
            {"gpu": 2.0},
            "12.0 GPU-hours for 8.00 in the unit of cost_per_gpu_hour without sft, dpo (their partition has no "
            "cost_per_gpu_hour), counting",
        ),
    ],
)
def test_what_it_costs_at_most(run: Run, prices: dict[str, float], said: str) -> None:
    """4 GPU-hours in each of: a partition, another one, and whichever of the two Slurm chooses."""
    shape = Resources(nodes=2, gpus_per_node=2, time="1:00:00")
    stages = [
        stage("cpt", steps=60),
        stage("sft", "cpt", steps=60),
        stage("dpo", "sft", steps=60),
        stage("eval", "dpo"),
    ]
    where = ("gpu", "big", "gpu,big", "cpu")
    plan = Plan(
        "waits",
        tuple(
            replace(one, resources=shape.changed(partition=name, gpus_per_node=None if name == "cpu" else 2))
            for one, name in zip(stages, where, strict=True)
        ),
    )
    partitions = {name: {"cost_per_gpu_hour": prices.get(name)} for name in ("gpu", "big")}
    assert said in text(plan, profile(partitions=partitions), run)
