"""The copy of our code that a run takes along: what is on disk at submission, committed or not, one a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.inputs import toolkit
from launch.runs import gc


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    installed = tmp_path / "installed"
    for name in toolkit.PACKAGES:
        (installed / name / "__pycache__").mkdir(parents=True)
        (installed / name / "edited.py").write_text("at submission")  # no version control knows it
        (installed / name / "__pycache__" / "edited.pyc").write_bytes(b"compiled")
    (installed / "jobs" / "boot.py").write_text("boot")
    monkeypatch.setattr(toolkit, "package_directory", lambda name: installed / name)
    return installed


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


@pytest.mark.failure(41)
def test_what_lies_there_is_taken_and_later_edits_are_not(installed: Path, workspace: Workspace) -> None:
    link = workspace.run("aaaaa").toolkit
    toolkit.take(workspace, link)
    for name in toolkit.PACKAGES:
        (installed / name / "edited.py").write_text("later")
        assert (link / name / "edited.py").read_text() == "at submission"
        assert not (link / name / "__pycache__").exists()
    assert (link / "overnight_job.py").read_text() == "boot"


def test_runs_of_one_version_share_one_copy_and_another_version_has_its_own(
    installed: Path, workspace: Workspace
) -> None:
    first, second, third = (workspace.run(name).toolkit for name in ("aaaaa", "bbbbb", "ccccc"))
    toolkit.take(workspace, first)
    (first / "jobs" / "__pycache__").mkdir()  # as the first job leaves it
    toolkit.take(workspace, second)
    assert first.resolve() == second.resolve()
    (installed / "jobs" / "edited.py").write_text("upgraded")
    toolkit.take(workspace, third)
    assert third.resolve() != first.resolve()
    assert (second / "jobs" / "edited.py").read_text() == "at submission"
    assert len(list(workspace.code.iterdir())) == 2


def test_a_damaged_copy_is_replaced_and_a_run_does_not_go_on_with_it(
    installed: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    link = workspace.run("aaaaa").toolkit
    toolkit.take(workspace, link)
    toolkit.refuse_changed(link)
    (link / "jobs" / "edited.py").write_text("damaged")
    with pytest.raises(InputError, match="was changed or removed"):
        toolkit.refuse_changed(link)
    toolkit.take(workspace, workspace.run("bbbbb").toolkit)
    assert "was changed since it was taken" in capsys.readouterr().err
    assert (link / "jobs" / "edited.py").read_text() == "at submission"
    toolkit.refuse_changed(link)


def test_gc_keeps_the_copy_of_a_run(installed: Path, workspace: Workspace) -> None:
    used, unused = workspace.run("aaaaa").toolkit, workspace.run("bbbbb").toolkit
    toolkit.take(workspace, used)
    (installed / "jobs" / "edited.py").write_text("upgraded")
    toolkit.take(workspace, unused)
    old = unused.resolve()
    unused.unlink()
    removed, _ = gc.collect(workspace, 0.0, dry_run=False)
    assert [one.path for one in removed] == [old]
    assert (used / "overnight_job.py").is_file()


def test_gc_reads_the_runs_twice_however_much_it_removes(
    installed: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (workspace.store / f"dataset-{number:016x}").mkdir(parents=True)
    looks = []
    needed = gc.needed
    monkeypatch.setattr(gc, "needed", lambda where: looks.append(where) or needed(where))
    removed, _ = gc.collect(workspace, 0.0, dry_run=False)
    assert len(removed) == 20
    assert not list(workspace.store.iterdir())
    assert len(looks) == 2
