"""Real run directories for tests: made, submitted and carried by our own code, with a back end that only waits.

The back end is put into the run's snapshot, where the jobs look for it; nothing of ours is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from launch import plan as planning
from launch import rundir
from launch.pipeline import read_pipeline
from launch.plan import Plan, PlannedInput, PlannedStage
from launch.profile import Resources, read_profile
from launch.rundir import Run

BACK_END = '''
"""Waits, step by step, and saves each step; does what its settings say at the step that they name."""

import os
import signal
import time

from jobs.backends import Capabilities, Result

NAME = "waiting"
CAPABILITIES = Capabilities(frozenset({"cpt", "corpus"}), frozenset({"hf"}), frozenset({"hf"}))


def probe():
    return {}


def behaviour(checkpoint):
    return None


def run(spec, ctx):
    settings = spec.settings
    found = ctx.saves.newest_sound()
    step = found[0] if found else 0
    print("begins after step", step, flush=True)
    while step < settings["steps"]:
        time.sleep(settings["seconds"])
        step += 1
        ctx.progress.report(step, settings["steps"], "training", loss=4.0 / step)
        print("did step", step, flush=True)
        if spec.target_step is not None and ctx.rank == 0:
            directory = spec.store_paths.save(step)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "state").write_text(str(step))
            ctx.saves.seal(step)
        if step == settings.get("fail_at"):
            raise ValueError("as the settings wanted it")
        if step == settings.get("die_at") and ctx.restart == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if step < settings["steps"] and ctx.stop.should_stop():
            return Result("stopped", step)
    (ctx.output / "text").write_text("done")
    return Result("done", step, {"loss": 4.0 / step})
'''

PIPELINE = """
name: waits
model: {base: ./nowhere}
stages:
  corpus: {kind: corpus, from: text.txt}
"""


def stage(
    name: str, *parents: str, resumable: bool = True, continuation: str | None = None, executor: str = "submitit",
    time: str = "10:00", nodes: int = 1, **settings: Any,
) -> PlannedStage:  # fmt: skip
    """A stage of the back end that waits; ``settings``: steps, seconds, fail_at, die_at."""
    settings = {"steps": 3, "seconds": 0.05, **settings}
    local = executor == "local"
    inputs = {f"from-{parent}": PlannedInput(parent, "checkpoint", "hf", print_of(parent), True) for parent in parents}
    return PlannedStage(
        name=name, kind="cpt", backend="waiting", produces_kind="checkpoint", produces_format="hf",
        fingerprint=print_of(name), inputs=inputs, settings=settings,
        resources=Resources(nodes=nodes, time=None if local else time, cpus=None if local else 1), executor=executor,
        continuation=continuation or ("none" if local or not resumable else "requeue"), python=sys.executable,
        launcher="python", target_step=settings["steps"] if resumable else None,
    )  # fmt: skip


def print_of(name: str) -> str:
    """Fingerprint of a stage of that name: the same in every run, so that runs share their store entries."""
    return planning.fingerprint(test=name)


def make(workspace: Path, *stages: PlannedStage, profile: Mapping[str, Any] | None = None) -> Run:
    """Make a run of these stages, ready to be submitted."""
    files = workspace.parent / "files"
    files.mkdir(exist_ok=True)
    (files / "waits.yaml").write_text(PIPELINE, encoding="utf-8")
    lines = {"executor": "slurm", "partition": "batch", "poll_seconds": 0.5, "lead": '"0:10"', **(profile or {})}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    (files / "site.yaml").write_text(text, encoding="utf-8")
    plan = Plan("waits", stages, (), sys.executable)
    run = rundir.create(
        Workspace(workspace), read_pipeline(files / "waits.yaml"), read_profile(files / "site.yaml"), plan
    )
    (run.paths.toolkit / "jobs" / "backends" / "waiting.py").write_text(BACK_END, encoding="utf-8")
    return run
