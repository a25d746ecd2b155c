"""The chain that benchmarks submit: eight stages of the ``toy`` back end on made-up texts, and a throw-away Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from measure import OVERNIGHT, child

from jobs.core.paths import Workspace
from launch.inputs import toolkit

PIPELINE = """\
name: eight
model: {base: ./base}
stages:
  corpus: {kind: corpus, from: ./texts/, document_chars: 400}
  pairs: {kind: instructions, from: ./pairs.jsonl}
  prefs: {kind: preferences, from: ./prefs.jsonl}
  baseline: {kind: evaluate, backend: toy, checkpoint: base, tasks: {perplexity: {data: corpus}}}
  cpt: {kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 4, lr: 0.5}
  sft: {kind: sft, backend: toy, checkpoint: cpt, data: pairs, steps: 4, lr: 0.5}
  dpo: {kind: dpo, backend: toy, checkpoint: sft, data: prefs, steps: 4, lr: 0.5}
  final: {kind: evaluate, backend: toy, checkpoint: dpo, tasks: {perplexity: {data: corpus}}, compare_to: baseline}
"""
STAGES = 8


def make(directory: Path, base_bytes: int = 1000) -> Path:
    """Write the pipeline and its data; returns the pipeline file. ``base_bytes``: size of the base model's weights."""
    texts = directory / "texts"
    texts.mkdir(parents=True)
    for number in range(60):
        lines = [f"The number after {value} is {value + 1}.\n" for value in range(number * 10, number * 10 + 10)]
        (texts / f"{number}.txt").write_text("".join(lines), encoding="utf-8")
    _rows(directory / "pairs.jsonl", lambda value: {"prompt": f"After {value}? ", "completion": f"{value + 1}"})
    _rows(
        directory / "prefs.jsonl",
        lambda value: {"prompt": f"After {value}? ", "chosen": f"{value + 1}", "rejected": f"{value + 2}"},
    )
    base = directory / "base"
    base.mkdir()
    # The toy back end reads nothing of it; the file gate reads every byte.
    (base / "config.json").write_text("{}\n", encoding="utf-8")
    with open(base / "model.safetensors", "wb") as weights:
        for start in range(0, base_bytes, 1 << 20):
            weights.write(os.urandom(min(1 << 20, base_bytes - start)))
    pipeline = directory / "eight.yaml"
    pipeline.write_text(PIPELINE, encoding="utf-8")
    return pipeline


def _rows(path: Path, row: object) -> None:
    assert callable(row)
    with open(path, "w", encoding="utf-8") as stream:
        for value in range(200):
            stream.write(json.dumps(row(value)) + "\n")


def fetched(pipeline: Path, workspace: Path) -> Path:
    """A workspace that holds the base model and no runs. This version has planned the chain in it, as it is before a
    submission, and submitted another one: what the back ends said and the snapshot of our packages are there."""
    child([*OVERNIGHT, "fetch", pipeline, "--cluster", "local", "--workspace", workspace])
    child([*OVERNIGHT, "plan", pipeline, "--cluster", "local", "--workspace", workspace])
    toolkit.take(Workspace(workspace), workspace / "earlier" / "toolkit")
    return workspace


def fresh(template: Path, target: Path) -> Path:
    """A copy of a fetched workspace, so that nothing is reused from the measurement before."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target, symlinks=True)
    return target


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one benchmark, removed at its end. Short: sockets of the cluster live in it."""
    with tempfile.TemporaryDirectory(prefix="onb-") as name:
        yield Path(name)


@contextlib.contextmanager
def slurm(directory: Path, *, accounting: bool = False) -> Iterator[Mapping[str, str]]:
    """A throw-away Slurm of four nodes; yields the environment in which Overnight and Slurm's commands find it."""
    where = directory / "slurm"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    environment |= {
        "OVERNIGHT_DEVCLUSTER": str(where),
        "SLURM_CONF": str(where / "etc" / "slurm.conf"),
        "XDG_STATE_HOME": str(directory / "state"),  # the list of known workspaces is not the user's here
    }
    child([*OVERNIGHT, "cluster", "up", "--dir", where, *(["--accounting"] if accounting else [])])
    try:
        yield environment
    finally:
        child([*OVERNIGHT, "cluster", "down", "--dir", where])
