"""Logs over jobs and restarts, and the list of runs; both from files."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from jobs.core.paths import StagePaths
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.status import logs
from tests.support.made_runs import make, said, sealed, stage, started, store_of, submitted


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    stages = (stage("cpt", executor="local"), stage("sft", "cpt", executor="local"))
    return make(tmp_path / "ws", *stages, profile={"executor": "local"})


def write(paths: StagePaths, job: str, restart: int, text: str) -> None:
    paths.logs.mkdir(parents=True, exist_ok=True)
    paths.log(job, restart).write_text(text, encoding="utf-8")


def show(run: Run, *arguments: str) -> int:
    return main(["logs", run.id, *arguments, "--workspace", str(run.workspace.root)])


def test_newest_log_and_all_of_them(run: Run, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    paths = run.paths.stage("cpt")
    for restart in (0, 1, 10, 2):
        write(paths, "7", restart, f"restart {restart}\n")
    write(paths, "9", 0, "job 9 \xe9\n")
    (paths.logs / "9.batch.log").write_text("what the batch shell says\n")
    old = time.time() - 100
    for restart in (0, 1, 2, 10):
        os.utime(paths.log("7", restart), (old, old))
    assert show(run, "cpt") == 0
    assert capsysbinary.readouterr().out.decode() == "job 9 \xe9\n"
    assert show(run, "cpt", "--all") == 0
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [line for line in lines if line.startswith("restart")] == [f"restart {n}" for n in (0, 1, 2, 10)]
    assert lines[-2:] == ["==> job 9 <==", "job 9 \xe9"]
    assert "==> job 7, restart 10 <==" in lines


def test_no_log_yet_says_why_and_shows_the_batch_shell(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert show(run, "cpt") == 0
    assert capfd.readouterr().err == "cpt has no log yet: not submitted\n"
    logs_of = run.paths.stage("cpt").logs
    logs_of.mkdir(parents=True)
    (logs_of / "7.batch.log").write_text("/bin/sh: no such interpreter\n")
    show(run, "cpt")
    assert "/bin/sh: no such interpreter" in capfd.readouterr().out


def test_unknown_stage_names_the_nearest(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(run, "cppt") == 2
    assert "nearest: cpt" in capsys.readouterr().err


def test_logs_of_a_stage_that_another_run_carries(run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = make(tmp_path / "ws", stage("cpt", executor="local"), profile={"executor": "local"})
    submitted(other, "cpt", "7")
    write(other.paths.stage("cpt"), "7", 0, "carried elsewhere\n")
    assert show(run, "cpt") == 0
    assert capfd.readouterr().out == "carried elsewhere\n"


def test_following_goes_over_to_the_next_restart_and_ends_with_the_seal(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = run.paths.stage("cpt")
    submitted(run, "cpt", "7")
    write(paths, "7", 0, "one\n")

    def work() -> None:
        time.sleep(0.7)
        with open(paths.log("7", 0), "a", encoding="utf-8") as stream:
            stream.write("two\n")
        write(paths, "7", 1, "three\n")
        time.sleep(0.7)
        with open(paths.log("7", 1), "a", encoding="utf-8") as stream:
            stream.write("four\n")
        sealed(run, "cpt")

    worker = threading.Thread(target=work)
    worker.start()
    assert show(run, "cpt", "-f") == 0
    worker.join()
    shown = capfd.readouterr()
    assert shown.out == "one\ntwo\nthree\nfour\n"
    assert "==> job 7, restart 1 <==" in shown.err


def test_following_ends_with_the_failure(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    submitted(run, "cpt", "7")
    started(run, "cpt", "7")
    write(run.paths.stage("cpt"), "7", 0, "Traceback\n")
    said(run, "cpt", "7", Outcome.FAIL, FailureClass.DATA_ERROR, "row 3")
    assert show(run, "cpt", "-f") == 1
    assert capfd.readouterr().err.endswith("cpt: failed: its data cannot be used\n")


def test_title() -> None:
    assert logs.title(Path("local-host-12_3.log")) == "==> job local-host-12, restart 3 <=="


def listed(run: Run, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["list", "--workspace", str(run.workspace.root), "--json"]) == 0
    return {entry["run"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["runs"]}


def test_list_gives_a_word_for_every_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(run, capsys) == {run.id: "not submitted"}
    submitted(run, "cpt", f"local-{os.uname().nodename}-{os.getpid()}", carrier="local")
    assert listed(run, capsys)[run.id] == "running"
    (store_of(run, "cpt").attempt_jobs(1)).write_text(json.dumps({"0": "7"}))
    started(run, "cpt", "7")
    said(run, "cpt", "7", Outcome.FAIL, FailureClass.CANCELLED, "stopped at step 3, saved")
    assert listed(run, capsys)[run.id] == "stopped"
    said(run, "cpt", "7", Outcome.FAIL, FailureClass.GATE, "perplexity rose")
    assert listed(run, capsys)[run.id] == "failed"
    run.journal.write(Event.CANCELLED, stages=["sft"], jobs=["8"])
    assert listed(run, capsys)[run.id] == "failed", "only a part of what is open was cancelled"
    run.journal.write(Event.CANCELLED, stages=["cpt", "sft"], jobs=["7"])
    assert listed(run, capsys)[run.id] == "cancelled"
    sealed(run, "cpt")
    sealed(run, "sft")
    assert listed(run, capsys)[run.id] == "done"
    cut_off = run.workspace.run("zzzzz")
    cut_off.root.mkdir()
    assert listed(run, capsys) == {run.id: "done", "zzzzz": "cut off"}
    assert main(["list", "--workspace", str(run.workspace.root)]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows[run.id][1:3] + rows[run.id][-2:] == ["waits", "site", "2/2", "done"]


def test_list_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["list", "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("no runs yet")
