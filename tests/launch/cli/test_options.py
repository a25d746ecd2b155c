"""What commands share: a run is opened, a result is printed as JSON or as text."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import pytest

import launch
from launch.base import answers
from launch.base.errors import InputError
from launch.cli import options
from launch.submit import prepare
from tests.support.made_runs import make, stage

BY_HAND = {"main.py", "schema.py"}
"""Errors; a JSON Schema, which is no answer."""


def test_a_result_is_one_line_of_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    answers.begin("profile", "list")
    options.print_result({"run": "abc", "schema": 7}, ["first", "second"], as_json=True)
    options.print_result({"run": "abc"}, ["first", "second"], as_json=False)
    options.print_result({"run": "abc"}, [], as_json=False)
    shown = capsys.readouterr().out.splitlines()
    assert json.loads(shown[0]) == {"schema": "overnight/profile/list/2", "run": "abc"}
    assert shown[1:] == ["first", "second"]


def test_commands_print_json_in_one_way() -> None:
    folder = Path(launch.__file__).parent / "cli"
    assert {path.name for path in folder.glob("*.py") if "json.dumps" in path.read_text()} <= BY_HAND


def test_a_run_is_opened_by_the_beginning_of_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = make(tmp_path / "ws", stage("cpt", steps=60))
    run, plan, profile = options.open_run(argparse.Namespace(run=made.id[:4], workspace=tmp_path / "ws"))
    assert (run.id, [one.name for one in plan.stages], profile.name) == (made.id, ["cpt"], made.profile().name)
    run.paths.plan.unlink()
    with pytest.raises(InputError):
        options.open_run(argparse.Namespace(run=made.id, workspace=tmp_path / "ws"))


def test_a_fault_of_either_file_says_the_command_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\nmodel: {base: ./b}\nstages: {a: {kind: corpus, from: ./x.txt, sed: 1}}\n"
    )
    (tmp_path / "my site.yaml").write_text("executor: local\n")
    (tmp_path / "bad.yaml").write_text("executor: local\nlinks: no\n")
    for profile in ("my site.yaml", "bad.yaml"):
        if profile == "bad.yaml":
            (tmp_path / "p.yaml").write_text(
                "name: p\nmodel: {base: ./b}\nstages: {a: {kind: corpus, from: ./x.txt}}\n"
            )
        given = argparse.Namespace(
            pipeline=tmp_path / "p.yaml", cluster=str(tmp_path / profile), set=[], workspace=tmp_path, json=False
        )
        with pytest.raises(InputError) as refused:
            prepare.read(options.wanted(given))
        assert shlex.split(refused.value.hint or "") == [
            "overnight",
            "plan",
            str(tmp_path / "p.yaml"),
            "--cluster",
            str(tmp_path / profile),
            "--workspace",
            str(tmp_path),
        ]
