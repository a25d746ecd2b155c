"""A back end that is not installed is refused by ``plan``, with the command that installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.base_model import complete

ROOT = Path(__file__).parents[3]
PIPELINE = """\
name: bare
model: {base: ./base}
stages:
  pairs: {kind: instructions, from: ./a.jsonl, prepare: {}}
  sft: {kind: sft, checkpoint: base, data: pairs, steps: 2, lr: 1e-5}
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package."""
    directory = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory / "venv")], check=True)
    (directory / "a.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    (directory / "base").mkdir()
    (directory / "base/config.json").write_text("{}")
    complete(directory / "base")
    (directory / "p.yaml").write_text(PIPELINE)
    return directory


def plan(bare: Path, environment: str, *more: str) -> subprocess.CompletedProcess[str]:
    (bare / "mine.yaml").write_text(f"executor: slurm\nenvironments: {{{environment}: {{venv: {bare}/venv}}}}\n")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OVERNIGHT_WORKSPACE": str(bare / "workspace")}
    return commands.overnight("plan", "p.yaml", "--cluster", "./mine.yaml", *more, cwd=bare, environment=variables)


def test_a_back_end_without_its_packages(bare: Path) -> None:
    done = plan(bare, "trl")
    assert done.returncode == 2
    assert "torch, transformers is not installed" in done.stderr
    assert (
        f"next: {bare}/venv/bin/python -m pip install 'overnight[train]'; or set environments.trl.venv" in done.stderr
    )


def test_prepare_without_the_extra_data(bare: Path) -> None:
    done = plan(bare, "data")
    assert done.returncode == 2
    assert "p.yaml:4:" in done.stderr
    assert f"next: {bare}/venv/bin/python -m pip install 'overnight[data]'" in done.stderr
    # Without prepare the standard library is enough.
    (bare / "p.yaml").write_text(PIPELINE.replace(", prepare: {}", ""))
    assert plan(bare, "data").returncode == 0
    (bare / "p.yaml").write_text(PIPELINE)


def test_what_only_the_nodes_have_is_not_judged_here(bare: Path) -> None:
    (bare / "mine.yaml").write_text(
        f"executor: slurm\nenvironments: {{trl: {{venv: {bare}/venv, nodes_only: true}}}}\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OVERNIGHT_WORKSPACE": str(bare / "workspace")}
    done = commands.overnight("plan", "p.yaml", "--cluster", "./mine.yaml", cwd=bare, environment=variables)
    assert done.returncode == 0, done.stderr
