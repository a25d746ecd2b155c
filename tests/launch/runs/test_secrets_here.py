"""Secrets of a run on this machine, without Slurm: the work has them and says them; nothing that is kept does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jobs.core import redaction, verdict
from launch.cli.main import main
from launch.config.profile_file import read_profile
from launch.plan import backends
from launch.runs import secret_files
from launch.runs.rundir import Run
from tests.support import made_runs

CANARY = "canary-7f3a-it's $HOME"

TELLS = (
    made_runs.FACE
    + """

def run(spec, ctx):
    token = os.environ["HF_TOKEN"]
    ctx.event("note", said=f"asked with {token}", more=[token])
    raise RuntimeError(f"401 for https://hub/api?token={token}&x=1")
"""
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_SECRETS", str(tmp_path / "none"))
    monkeypatch.setattr(made_runs, "BACK_END", TELLS)
    stage = made_runs.stage("cpt", executor="local")
    return made_runs.make(tmp_path / "ws", stage, profile={"executor": "local", "secrets": "[HF_TOKEN]"})


@pytest.mark.failure(25)
def test_an_error_that_quotes_a_secret_is_kept_without_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    workspace = str(run.workspace.root)
    assert main(["resume", run.id, "--workspace", workspace]) == 1
    main(["why", run.id, "--workspace", workspace])
    main(["status", run.id, "--workspace", workspace, "--json"])
    said = capfd.readouterr()
    assert "canary-7f3a" not in said.out + said.err
    (found,) = verdict.all_of(run.paths.stage("cpt"))
    assert "token=[HF_TOKEN]&x=1" in found.evidence
    assert "token=[HF_TOKEN]&x=1" in said.out + said.err
    events = run.paths.stage("cpt").events.read_text()
    assert '"asked with [HF_TOKEN]"' in events
    log = next(run.paths.stage("cpt").logs.glob("*.log")).read_text()
    assert "RuntimeError: 401 for https://hub/api?token=[HF_TOKEN]&x=1" in log, "our own traceback has none either"
    for path in run.workspace.root.rglob("*"):
        if path.is_file() and path != run.paths.secrets:
            assert b"canary-7f3a" not in path.read_bytes(), path
    assert redaction.read(run.paths.secrets) == {"HF_TOKEN": CANARY}


@pytest.mark.failure(25)
def test_resume_takes_a_new_value_and_keeps_the_old_one_where_there_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "first-value")
    secret_files.renew(run.paths, ["HF_TOKEN"])
    monkeypatch.delenv("HF_TOKEN")
    secret_files.renew(run.paths, ["HF_TOKEN"])
    assert redaction.read(run.paths.secrets) == {"HF_TOKEN": "first-value"}
    monkeypatch.setenv("HF_TOKEN", "second-value")
    secret_files.renew(run.paths, ["HF_TOKEN"])
    assert redaction.read(run.paths.secrets) == {"HF_TOKEN": "second-value"}
    assert run.paths.secrets.stat().st_mode & 0o777 == 0o600


@pytest.mark.failure(24, 25)
def test_a_look_at_a_back_end_has_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose environment it is, is told by the interpreter itself."""
    seen = tmp_path / "seen"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\nenv >{seen}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = tmp_path / "site.yaml"
    path.write_text(f"executor: slurm\nsecrets: [my_licence]\nenvironments: {{toy: {{venv: {tmp_path}/venv}}}}\n")
    for name in ("HF_TOKEN", "my_licence", "of_the_pipeline", "SLURM_CPU_BIND"):
        monkeypatch.setenv(name, "canary-value")
    monkeypatch.setenv("CUDA_HOME", "/cuda")
    found = backends.probe(["toy"], read_profile(path).profile, secrets=["of_the_pipeline"])
    assert "cpt" in found["toy"].capabilities.kinds
    text = seen.read_text()
    assert "canary-value" not in text
    assert "CUDA_HOME=/cuda" in text
    assert os.environ["HF_TOKEN"] == "canary-value"
