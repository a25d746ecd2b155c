"""Answers of back ends that are kept: used again while nothing has changed that they were made from, and never after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import launch
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.plan import backends, probe_cache
from launch.plan.probe_cache import ProbeCache

ROOT = Path(launch.__file__).parent.parent


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    install(tmp_path / "venv", "1.16.0")
    return tmp_path / "venv"


def site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def install(environment: Path, version: str, name: str = "trl") -> Path:
    information = site_packages(environment) / f"{name}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return information


class Asked:
    """Asks one back end as a plan does, and counts the processes that this starts."""

    def __init__(self, environment: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = {"name": "site", "executor": "slurm", "environments": {"trl": {"venv": str(environment)}}}
        self.profile = Profile.read(keys)
        self.workspace = Workspace(workspace)
        self.processes = 0
        real = subprocess.run

        def counted(*given, **more):
            self.processes += 1
            return real(*given, **more)

        monkeypatch.setattr(subprocess, "run", counted)
        monkeypatch.setattr(probe_cache, "_SETTLED_NS", 0)

    def __call__(self, name: str = "trl", code: Path | None = None) -> dict[str, str]:
        cache = ProbeCache(self.workspace.back_ends)
        return dict(backends.probe([name], self.profile, code, cache=cache)[name].versions)

    def kept(self) -> dict:
        return json.loads(self.workspace.back_ends.read_text())


@pytest.fixture
def asked(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(environment, tmp_path / "ws", monkeypatch)
    assert asked() == {"trl": "1.16.0"}
    assert asked.processes == 1
    return asked


def test_nothing_is_asked_twice(asked: Asked) -> None:
    assert asked() == asked() == {"trl": "1.16.0"}
    assert asked.processes == 1
    (made_from,) = [entry["made_from"] for entry in asked.kept().values()]
    assert str(ROOT / "jobs" / "backends" / "trl" / "__init__.py") in made_from
    assert str(ROOT / "jobs" / "training" / "interface.py") in made_from


def installed(environment: Path) -> dict[str, str]:
    install(environment, "5.17.0", "transformers")
    return {"trl": "1.16.0", "transformers": "5.17.0"}


def removed(environment: Path) -> dict[str, str]:
    information = site_packages(environment) / "trl-1.16.0.dist-info"
    (information / "METADATA").unlink()
    information.rmdir()
    return {}


def rewritten(environment: Path) -> dict[str, str]:
    """In place, of the same size, and dated back, as tools do that copy environments."""
    path = site_packages(environment) / "trl-1.16.0.dist-info" / "METADATA"
    before = path.stat()
    path.write_text(path.read_text().replace("1.16.0", "1.17.0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {"trl": "1.17.0"}


def extended(environment: Path) -> dict[str, str]:
    """A .pth file adds a directory in which there is another package."""
    more = environment.parent / "more" / "transformers-5.0.0.dist-info"
    more.mkdir(parents=True)
    (more / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n")
    (site_packages(environment) / "more.pth").write_text(f"{more.parent}\n")
    return {"trl": "1.16.0", "transformers": "5.0.0"}


def remade(environment: Path) -> dict[str, str]:
    with open(environment / "pyvenv.cfg", "a") as stream:
        stream.write("prompt = other\n")
    return {"trl": "1.16.0"}


@pytest.mark.parametrize(
    "change", [installed, removed, rewritten, extended, remade], ids=lambda change: change.__name__
)
def test_a_change_of_the_environment_is_seen(
    change: Callable[[Path], dict[str, str]], asked: Asked, environment: Path
) -> None:
    wanted = change(environment)
    assert asked() == wanted
    assert asked.processes == 2


def test_a_changed_pth_file_is_seen(asked: Asked, environment: Path) -> None:
    extended(environment)
    asked()
    (site_packages(environment) / "more.pth").write_text(f"{environment}\n")
    assert asked() == {"trl": "1.16.0"}
    assert asked.processes == 3


def test_another_pythonpath_is_another_question(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = tmp_path / "path" / "transformers-5.0.0.dist-info"
    more.mkdir(parents=True)
    (more / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n")
    monkeypatch.setenv("PYTHONPATH", str(more.parent))
    assert asked() == {"trl": "1.16.0", "transformers": "5.0.0"}
    monkeypatch.delenv("PYTHONPATH")
    assert asked() == {"trl": "1.16.0"}
    assert asked.processes == 2


MINE = """\
from jobs.backends import Capabilities

NAME = "mine"
CAPABILITIES = Capabilities(frozenset({"cpt"}), frozenset({"hf"}), frozenset({"hf"}))


def probe():
    return {"mine": "1"}
"""


def test_a_back_end_of_the_users_code_is_asked_every_time(asked: Asked, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(MINE)
    assert asked("mine", code) == {"mine": "1"}
    (code / "mine.py").write_text(MINE.replace('"1"', '"2"'))
    assert asked("mine", code) == {"mine": "2"}
    assert asked.processes == 3
    assert len(asked.kept()) == 1


def test_what_has_just_changed_is_not_kept(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(environment, tmp_path / "ws", monkeypatch)
    monkeypatch.setattr(probe_cache, "_SETTLED_NS", 60_000_000_000)
    asked()
    assert not asked.workspace.back_ends.exists()


def test_what_changes_while_it_is_asked_is_not_kept(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(environment, tmp_path / "ws", monkeypatch)
    counted = subprocess.run

    def with_an_installation(*given, **more):
        done = counted(*given, **more)
        time.sleep(0.01)
        install(environment, "5.17.0", "transformers")
        return done

    monkeypatch.setattr(subprocess, "run", with_an_installation)
    assert asked() == {"trl": "1.16.0"}
    monkeypatch.setattr(subprocess, "run", counted)
    assert asked() == {"trl": "1.16.0", "transformers": "5.17.0"}


def test_an_interpreter_that_a_script_starts_is_asked_every_time(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "other" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\nexec {environment}/bin/python "$@"\n')
    python.chmod(0o755)
    asked = Asked(tmp_path / "other", tmp_path / "ws", monkeypatch)
    assert asked() == asked() == {"trl": "1.16.0"}
    assert asked.processes == 2


def test_an_error_is_not_kept(asked: Asked) -> None:
    with pytest.raises(InputError):
        asked("automodel")
    with pytest.raises(InputError):
        asked("automodel")
    assert asked.processes == 3


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1', "null"])
def test_a_broken_file_is_only_slower(asked: Asked, text: str) -> None:
    (key,) = asked.kept()
    for broken in (text, json.dumps({key: 1}), json.dumps({key: {"made_from": {}}})):
        asked.workspace.back_ends.write_text(broken)
        assert asked() == {"trl": "1.16.0"}


@pytest.mark.parametrize(
    ("statement", "is_known"),
    [
        ("open('read.txt').close()", True),
        ("import subprocess; subprocess.run(['true'])", False),
        ("import os; os.system('true')", False),
        ("import socket; socket.getaddrinfo('127.0.0.1', 80)", False),
    ],
)
def test_evidence_is_files_or_nothing(statement: str, is_known: bool, tmp_path: Path) -> None:
    (tmp_path / "read.txt").write_text("x")
    text = "import json; from jobs.core.evidence import Evidence; found = Evidence()\n"
    text += f"{statement}\nprint(json.dumps(found.as_json()))"
    command = [sys.executable, "-c", text]
    shown = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    paths = json.loads(shown.stdout)["paths"]
    assert (paths is not None) == is_known
    if is_known:
        assert {str(tmp_path / "read.txt"), str(ROOT / "jobs/core/evidence.py"), sys.executable} <= set(paths)
