"""One job with two saves and an output, carried in this process by the product's own steps; the trainer is ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jobs.core import attempts, files
from jobs.core.attempts import Attempt
from jobs.core.spec import StageSpec
from jobs.lifecycle import steps
from jobs.lifecycle.start import Start, claim_of, output_of
from jobs.lifecycle.steps import Entry
from jobs.training.saves import Saves
from tests.file_faults.recorder import tree
from tests.support import stages

WEIGHTS = {"model.safetensors": b"w" * 3000, "deep/config.json": b"{}"}


def put(path: Path, data: bytes) -> None:
    """As a trainer writes: nothing is flushed."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(handle, data)
    os.close(handle)


def spec_of(root: Path) -> StageSpec:
    return stages.spec_of(root, target_step=6, continuation="requeue")


def prepare(spec: StageSpec) -> None:
    """What the submission has flushed before there was a job."""
    files.make_directory(spec.stage_paths.root)
    files.make_directory(spec.store_paths.root)
    attempt = Attempt(1, "aaaaaa", spec.run, spec.stage, spec.stage_dir, "slurm", ("on-a",))
    assert attempts.open_next(spec.store_paths, attempt)


def carry(spec: StageSpec, restart: int, mark: Any = lambda value: None) -> str:
    """One start of the job: prologue, two saves (the older goes), the output, seal and verdict. The decision."""
    start = Start("100", restart, 0, "node1")
    entry = steps.prologue(spec, start)
    if entry is not Entry.WORK:
        return str(entry.name)
    saves = Saves(spec.store_paths, spec.fingerprint, claim_of(spec, start), lambda name, **facts: None)
    found = saves.newest_valid()
    done = found[0] if found else 0
    saves.discard_newer_than(done)
    for step in (2, 4):
        if step > done:
            directory = saves.directory / f"checkpoint-{step}"
            directory.mkdir()
            put(directory / "state", b"s" * 1000 + b"%d" % step)
            saves.seal(step)
            mark(("saved", step))
            saves.keep_last(1)
    output = output_of(spec, start)
    (output / "deep").mkdir()
    for name, data in WEIGHTS.items():
        put(output / name, data)
    files.write_json(spec.stage_paths.result, {"outcome": "done", "step": 6, "job": "100", "restart": restart})
    decision = steps.finish(spec, start, 0)
    if decision == "done":
        mark(("done", 6))
    return decision


def content(directory: Path) -> dict[str, Any]:
    """Files below a directory."""
    return {name: data for name, data in tree(directory).items() if data is not None}
