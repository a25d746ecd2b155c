"""Snapshots of the user's work tree, and what gc makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.cli.main import main
from launch.inputs import user_code
from launch.runs import gc


def git(tree: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tree), *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "pkg").mkdir(parents=True)
    (tree / "pkg" / "mine.py").write_text("VALUE = 1\n")
    (tree / ".gitignore").write_text("data/\n.venv/\n")
    (tree / "data").mkdir()
    (tree / "data" / "big").write_text("x" * 1000)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    return tree


def names(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*") if not entry.is_dir()}


@pytest.mark.failure(41)
def test_uncommitted_and_untracked_files_are_in_it_and_counted(tree: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    before = user_code.take(tree, workspace)
    assert before.uncommitted == 0
    (tree / "pkg" / "mine.py").write_text("VALUE = 2\n")
    (tree / "new file é.py").write_text("")
    taken = user_code.take(tree, workspace)
    assert taken.uncommitted == 2
    assert names(taken.path) == {"pkg/mine.py", "new file é.py", ".gitignore"}
    assert (taken.path / "pkg" / "mine.py").read_text() == "VALUE = 2\n"
    assert (before.path / "pkg" / "mine.py").read_text() == "VALUE = 1\n", "what was submitted stays as it was"
    assert user_code.take(tree, workspace).path == taken.path
    assert sorted(path.name for path in workspace.code.iterdir()) == sorted([before.digest, taken.digest])
    assert not (taken.path / "pkg" / "mine.py").stat().st_mode & 0o222


def test_without_git_environments_and_caches_are_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a.py", ".venv/pyvenv.cfg", ".venv/lib/x.py", "__pycache__/a.pyc", "sub/b.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    taken = user_code.take(tree, Workspace(tmp_path / "w"))
    assert taken.uncommitted is None
    assert names(taken.path) == {"a.py", "sub/b.py"}


@pytest.mark.parametrize("aim", ["/etc/passwd", "../outside"])
def test_a_link_out_of_the_tree_is_refused(tree: Path, tmp_path: Path, aim: str) -> None:
    (tree / "link").symlink_to(aim)
    with pytest.raises(InputError, match="out of the tree"):
        user_code.take(tree, Workspace(tmp_path / "w"))
    assert list((tmp_path / "w" / "code").iterdir()) == []


@pytest.mark.parametrize("name", [b"a\nb.py", b"a\x1b[2J", b"\xff.py"])
def test_hostile_names_are_refused(tree: Path, tmp_path: Path, name: bytes) -> None:
    (tree / os.fsdecode(name)).write_text("")
    with pytest.raises(InputError, match=r"control character|not UTF-8"):
        user_code.take(tree, Workspace(tmp_path / "w"))


def test_large_files_and_trees_are_refused(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "weights.bin").write_bytes(b"x" * 5000)
    monkeypatch.setattr(user_code, "MAX_FILE", 4000)
    with pytest.raises(InputError, match=r"weights\.bin has"):
        user_code.take(tree, Workspace(tmp_path / "w"))
    monkeypatch.setattr(user_code, "MAX_FILE", 9000)
    monkeypatch.setattr(user_code, "MAX_TOTAL", 4000)
    with pytest.raises(InputError, match=r"weights\.bin: 0 MB"):
        user_code.take(tree, Workspace(tmp_path / "w"))


def test_a_job_imports_the_users_module_from_the_snapshot(tree: Path, tmp_path: Path) -> None:
    from launch.inputs import toolkit

    taken = user_code.take(tree, Workspace(tmp_path / "w"))
    code = tmp_path / "run" / "code"
    toolkit.take(Workspace(tmp_path / "w"), code / "toolkit")
    (code / "user").symlink_to(taken.path)
    (tree / "pkg" / "mine.py").write_text("VALUE = 'edited later'\n")
    (code / "toolkit" / "jobs" / "__main__.py").write_text(
        "def main(argv):\n    from pkg import mine\n    print(mine.VALUE, mine.__file__)\n    return 0\n"
    )
    done = subprocess.run(
        [sys.executable, code / "toolkit" / "overnight_job.py"], cwd=tree, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"1 {code / 'user'}")


def test_gc_keeps_what_a_run_names_and_frees_the_rest(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path / "w")
    kept = user_code.take(tree, workspace)
    (tree / "pkg" / "mine.py").write_text("VALUE = 2\n")
    unneeded = user_code.take(tree, workspace)
    link = workspace.run("abcde").user_code
    link.parent.mkdir(parents=True)
    link.symlink_to(kept.path)
    for name in ("checkpoint-0123456789abcdef", "download-0123456789abcdef"):
        (workspace.store / name).mkdir(parents=True)
        (workspace.store / name / "x").write_text("y" * 100)
    arguments = ["gc", "--workspace", str(workspace.root), "--keep-days", "0", "--json"]
    assert main([*arguments, "--dry-run"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in said["removed"]] == [str(unneeded.path)]
    assert said["unknown"] == ["abcde"], "a run without a plan may be in the making: the store is left alone"
    assert unneeded.path.is_dir()
    assert main(arguments) == 0
    assert not unneeded.path.exists()
    assert kept.path.is_dir()
    assert len(list(workspace.store.iterdir())) == 2
    link.unlink()
    link.parent.rmdir()
    workspace.run("abcde").root.rmdir()
    capsys.readouterr()
    assert main(arguments) == 0
    assert {path.name for path in workspace.store.iterdir()} == {"download-0123456789abcdef"}, "downloads are kept"
    assert json.loads(capsys.readouterr().out)["bytes"] >= 100


def test_gc_puts_back_what_a_run_came_to_need(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "w")
    taken = user_code.take(tree, workspace)
    rename = os.rename

    def submitted_meanwhile(source: Path, target: Path) -> None:
        rename(source, target)
        link = workspace.run("abcde").user_code
        if not link.is_symlink():
            link.parent.mkdir(parents=True)
            link.symlink_to(taken.path)

    monkeypatch.setattr(gc.os, "rename", submitted_meanwhile)
    assert gc.collect(workspace, 0, False)[0] == []
    assert taken.path.is_dir()
