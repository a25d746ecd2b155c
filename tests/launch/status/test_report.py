"""What ``overnight report`` says of a run that is done, one that failed, and one that is not over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jobs.core import seal
from jobs.core.seal import SealKind
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.runs.rundir import Run
from tests.launch.status.test_results import AFTER, BEFORE, evaluation
from tests.support.made_runs import make, said, sealed, stage, started, store_of, submitted


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    stages = (
        evaluation("baseline"),
        stage("sft", executor="local"),
        stage("dpo", "sft", executor="local"),
        evaluation("final", "baseline"),
    )
    return make(tmp_path / "ws", *stages, profile={"executor": "local"})


def report(run: Run, capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> str:
    assert main(["report", run.id, "--workspace", str(run.workspace.root), *more]) == code
    return capsys.readouterr().out


def test_done_names_the_last_checkpoint_by_its_content(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(run, "baseline", SealKind.EVALUATION, metrics=BEFORE)
    sealed(run, "sft")
    sealed(run, "dpo")
    sealed(run, "final", SealKind.EVALUATION, metrics=AFTER)
    text = report(run, capsys)
    output = store_of(run, "dpo").output
    assert "outcome: done, 4 stages sealed" in text
    assert f"finished model: {output}" in text
    assert f"content sha256 {seal.load(store_of(run, 'dpo').seal).content}" in text
    assert "may_fall 0.02: UNDECIDED" in text
    found = json.loads(report(run, capsys, "--json"))
    assert found["done"] is True
    assert (found["model"]["stage"], found["model"]["path"]) == ("dpo", str(output))
    assert [made["state"] for made in found["stages"]] == ["sealed"] * 4
    assert found["results"][-1]["metric"] == "margin"
    assert found["reasons"] == []


def test_failed_gives_the_reason_once_and_the_newest_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(run, "sft")
    job = f"local-{os.uname().nodename}-{2**22 + 1}"
    submitted(run, "dpo", job, carrier="local", pid=2**22 + 1)
    started(run, "dpo", job)
    said(run, "dpo", job, Outcome.FAIL, FailureClass.GPU_MEMORY, "CUDA out of memory", source="x.log:7")
    text = report(run, capsys, code=1)
    assert "outcome: dpo failed; 1 of 4 stages sealed" in text
    assert f"newest model (of sft): {store_of(run, 'sft').output}" in text
    assert "finished" not in text
    assert text.count("CUDA out of memory") == 1
    found = json.loads(report(run, capsys, "--json", code=1))
    assert [(one["stage"], one["failure"]) for one in found["reasons"] if one["failure"]] == [
        ("dpo", FailureClass.GPU_MEMORY.value)
    ]


def test_nothing_made_yet_has_no_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = report(run, capsys)
    assert "model" not in text.replace("next:", "")
    assert json.loads(report(run, capsys, "--json"))["model"] is None


def test_a_torn_seal_is_no_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("baseline", "sft", "dpo", "final"):
        kind = SealKind.EVALUATION if name in ("baseline", "final") else SealKind.CHECKPOINT
        sealed(run, name, kind, metrics=BEFORE if kind is SealKind.EVALUATION else None)
    torn = store_of(run, "dpo").seal
    torn.write_text(torn.read_text()[:40])
    text = report(run, capsys, code=1)
    assert f"its result is damaged: {torn}" in text
    assert f"newest model (of sft): {store_of(run, 'sft').output}" in text
    assert main(["status", run.id, "--workspace", str(run.workspace.root)]) == 1


def test_without_a_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--workspace", str(tmp_path / "none")]) == 2
    assert "overnight" in capsys.readouterr().err
