"""Which jobs ``cancel`` takes, and how it stops a run on this machine. The rest is tested on a real Slurm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jobs.core.slurm_states import JobState
from launch.base.errors import ClusterUnreachable
from launch.cli.main import main
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.submit import cancel
from tests.support.made_runs import make, row, stage, submitted


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Programs:
    """squeue and scancel as programs: squeue prints the rows of a file, scancel takes rows out of it."""

    def __init__(self, directory: Path) -> None:
        self.rows = directory / "rows"
        self.calls = directory / "calls"
        directory.mkdir()
        self.rows.touch()
        squeue = f'#!/bin/sh\ncat "{self.rows}"\n'
        scancel = f'#!/bin/sh\necho "$@" >>"{self.calls}"\nfor job; do sed -i "/^.$job[^0-9]/d" "{self.rows}"; done\n'
        for name, text in (("squeue", squeue), ("scancel", scancel)):
            (directory / name).write_text(text, encoding="utf-8")
            (directory / name).chmod(0o755)
        self.gateway = Gateway(environment={"PATH": f"{directory}:{os.environ['PATH']}"})

    def queue(self, job: str, name: str, state: str = "PENDING") -> None:
        fields = [job, state, "1", "N/A", "N/A", "1", "", "batch", name, "(null)", "Dependency"]
        with open(self.rows, "a", encoding="utf-8") as stream:
            stream.write("\x1e" + "\x1f".join(fields) + "\n")

    @property
    def cancelled(self) -> list[str]:
        return sorted(self.calls.read_text().split()) if self.calls.exists() else []


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "programs")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "ws", stage("cpt"), stage("cpt-2", "cpt"), stage("other"))


@pytest.mark.failure(40)
def test_every_job_under_our_names_goes_also_copies_and_unrecorded_ones(run: Run, programs: Programs) -> None:
    for job, name in (("1", "cpt-aaaaaa"), ("2", "cpt-aaaaaa"), ("3", "cpt-2-aaaaaa"), ("4", "other-bbbbbb-2")):
        programs.queue(job, f"on-{run.id}-{name}")
    programs.queue("5", "on-zzzzz-cpt-aaaaaa")
    programs.queue("6", f"on-{run.id}-cpt-aaaaaa", state="COMPLETED")
    done = cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt", "cpt-2", "other"})
    assert done.jobs == {"1": "cpt", "2": "cpt", "3": "cpt-2", "4": "other"}
    assert done.left == ()
    assert programs.calls.read_text().splitlines() == ["1 2 3 4"], "one scancel, so that no dependent starts between"
    before, after = [entry for entry in run.journal.read() if entry["event"] == "cancelled"]
    assert (before["phase"], after["phase"], after["left"]) == ("before", "after", [])
    assert cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt", "cpt-2", "other"}).jobs == {}


def test_a_stage_takes_those_below_it_and_no_others(run: Run, programs: Programs) -> None:
    for job, name in (("1", "cpt-aaaaaa"), ("3", "cpt-2-aaaaaa"), ("4", "other-bbbbbb")):
        programs.queue(job, f"on-{run.id}-{name}")
    cancel.on_slurm(run, run.plan(), programs.gateway, run.plan().below({"cpt"}))
    assert programs.cancelled == ["1", "3"]


def test_jobs_of_another_run_are_spared_unless_asked_for(run: Run, programs: Programs, tmp_path: Path) -> None:
    other = make(tmp_path / "ws", stage("cpt"))
    submitted(other, "cpt", "9")
    programs.queue("9", row(other, "cpt", "9", JobState.RUNNING).name, state="RUNNING")
    done = cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt"})
    assert (done.jobs, done.spared, programs.cancelled) == ({}, {"cpt": other.id}, [])
    done = cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt"}, adopted=True)
    assert done.jobs == {"9": "cpt"}


@pytest.mark.failure(40)
def test_a_job_that_does_not_go_is_named(run: Run, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "VERIFY_SECONDS", 0.5)
    (programs.rows.parent / "scancel").write_text("#!/bin/sh\n", encoding="utf-8")
    programs.queue("1", f"on-{run.id}-cpt-aaaaaa", state="RUNNING")
    assert cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt"}).left == ("1",)


def test_silence_after_the_scancel_is_said(run: Run, programs: Programs) -> None:
    silent = "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
    lies = f"#!/bin/sh\nprintf '%s' \"{silent}\" >{programs.rows.parent}/squeue\n"
    (programs.rows.parent / "scancel").write_text(lies, encoding="utf-8")
    programs.queue("1", f"on-{run.id}-cpt-aaaaaa", state="RUNNING")
    with pytest.raises(ClusterUnreachable, match="whether they are gone is not known"):
        cancel.on_slurm(run, run.plan(), programs.gateway, {"cpt"})


def test_a_stage_on_this_machine_is_asked_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = (stage("cpt", executor="local"), stage("sft", "cpt", executor="local"))
    run = make(tmp_path / "ws", *stages, profile={"executor": "local"})
    arguments = ["cancel", run.id, "--workspace", str(tmp_path / "ws"), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["stopping"] == []
    submitted(run, "cpt", f"local-{os.uname().nodename}-{os.getpid()}", carrier="local")
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["stopping"] == ["cpt"]
    assert run.paths.stage("cpt").stop.exists()


def test_unknown_stage_names_the_nearest(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", run.id, "othr", "--workspace", str(tmp_path / "ws")]) == 2
    assert "there is no stage 'othr' in this run; nearest: other" in capsys.readouterr().err
