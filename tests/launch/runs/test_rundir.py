"""Runs and families are found by the beginning of their ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.runs import family, rundir


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("runs/abcde", "runs/abxyz", "families/f-abcde", "families/f-abxyz"):
        (tmp_path / name).mkdir(parents=True)
    return Workspace(tmp_path)


def test_the_only_one_that_begins_so_is_meant(workspace: Workspace) -> None:
    assert rundir.find("abc", workspace.root).id == "abcde"
    assert family.find("f-abc", [workspace]).id == "f-abcde"
    (workspace.runs / "ab").mkdir()
    assert rundir.find("ab", workspace.root).id == "ab"  # its whole name


@pytest.mark.parametrize(
    ("given", "says"),
    [("ab", "'ab' is the beginning of several runs: ab"), ("zz", "there is no run 'zz'; the newest: ab")],
)
def test_several_and_none_are_refused_with_those_that_there_are(workspace: Workspace, given: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        rundir.find(given, workspace.root)
    says = says.replace("several runs", "several families").replace("no run", "no family").replace(": ab", ": f-ab")
    with pytest.raises(InputError, match=says.replace(f"'{given}'", f"'f-{given}'")):
        family.find(f"f-{given}", [workspace])


def test_no_family_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no family 'f-abc'; the newest: there are none"):
        family.find("f-abc", [Workspace(tmp_path)])
