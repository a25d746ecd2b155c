"""``overnight rm``: what a run leaves behind goes, what another one uses stays."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from launch.runs import remove
from launch.runs.rundir import Run
from tests.support import commands
from tests.support.made_runs import make, sealed, stage, started, store_of, submitted


@pytest.fixture
def two(tmp_path: Path) -> tuple[Run, Run]:
    """Two runs that share ``first``; the second has ``second`` besides."""
    local = {"executor": "local"}
    one = make(tmp_path / "ws", stage("first", executor="local"), profile=local)
    other = make(
        tmp_path / "ws", stage("first", executor="local"), stage("second", "first", executor="local"), profile=local
    )
    return one, other


def overnight(run: Run, *arguments: str) -> tuple[int, str, str]:
    environment = {
        **os.environ,
        "OVERNIGHT_WORKSPACE": str(run.workspace.root),
        "XDG_STATE_HOME": str(run.workspace.root),
    }
    done = commands.overnight(*arguments, cwd=run.workspace.root, environment=environment)
    return done.returncode, done.stdout, done.stderr


def test_a_run_goes_with_what_no_other_run_names(two: tuple[Run, Run]) -> None:
    one, other = two
    sealed(other, "first")
    sealed(other, "second")
    first, second = store_of(other, "first"), store_of(other, "second")
    download = one.workspace.store / "download-0123456789abcdef"
    download.mkdir()
    code, shown, _ = overnight(one, "rm", other.id, "--dry-run")
    assert code == 0
    assert str(second.root) in shown
    assert str(first.root) not in shown
    assert other.paths.root.exists()
    assert overnight(one, "rm", other.id, "--yes")[0] == 0
    assert not other.paths.root.exists()
    assert not second.root.exists()
    assert first.root.exists()
    assert overnight(one, "rm", one.id, "--yes")[0] == 0
    assert not first.root.exists()
    assert download.exists()
    assert {path.name for path in one.workspace.store.iterdir()} == {download.name}


def test_it_asks_first(two: tuple[Run, Run]) -> None:
    one, _ = two
    code, _, told = overnight(one, "rm", one.id)
    assert code == 2
    assert "next: --yes" in told
    for answer, left in (("n", True), ("y", False)):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["OVERNIGHT_WORKSPACE"] = str(one.workspace.root)
            os.execvp("python", ["python", "-m", "launch.cli", "rm", one.id])
        os.write(terminal, f"{answer}\n".encode())
        shown = b""
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:  # the other side has closed
            pass
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == int(left), shown
        assert one.paths.root.exists() is left


def test_a_run_that_is_not_over_stays(two: tuple[Run, Run]) -> None:
    one, _ = two
    submitted(one, "first", "1", carrier="local")
    started(one, "first", "1")
    code, _, told = overnight(one, "rm", one.id, "--yes")
    assert code == 2
    assert f"run {one.id} is not over: first" in told
    assert f"next: overnight cancel {one.id}; then: overnight rm {one.id}" in told
    assert one.paths.root.exists()


def test_while_a_plan_cannot_be_read_results_stay(two: tuple[Run, Run]) -> None:
    one, other = two
    sealed(other, "second")
    second = store_of(other, "second")
    one.paths.plan.write_text("{")
    found = remove.of(other.workspace, [other.id])
    assert found.unknown == (one.id,)
    assert not found.unneeded or all(removal.reason == "code" for removal in found.unneeded)
    remove.remove(found)
    assert second.root.exists()
    assert not other.paths.root.exists()
