"""The copy of our code that a run takes along: what is on disk at submission, committed or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.inputs import toolkit


@pytest.mark.failure(41)
def test_what_lies_there_is_taken_and_later_edits_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "installed"
    for name in toolkit.PACKAGES:
        (installed / name).mkdir(parents=True)
        (installed / name / "edited.py").write_text("at submission")  # no version control knows it
    (installed / "jobs" / "boot.py").write_text("boot")
    monkeypatch.setattr(toolkit, "package_directory", lambda name: installed / name)
    toolkit.take(tmp_path / "toolkit")
    for name in toolkit.PACKAGES:
        (installed / name / "edited.py").write_text("later")
        assert (tmp_path / "toolkit" / name / "edited.py").read_text() == "at submission"
    assert (tmp_path / "toolkit" / "overnight_job.py").read_text() == "boot"
