"""Real run directories for tests: made, submitted and carried by our own code, with a back end that only waits.

The back end is put into the run's snapshot, where the jobs look for it; nothing of ours is replaced.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core import attempts, claim, files, results, seal, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StorePaths, Workspace
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome, Verdict
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Resources
from launch.config.profile_file import read_profile
from launch.plan import model
from launch.plan.model import Plan, PlannedInput, PlannedStage
from launch.runs import rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.queue import QueueRow

FACE = """
import os
import signal
import time

from jobs.backends import Capabilities, Completeness, Result

NAME = "waiting"
CAPABILITIES = Capabilities(frozenset({"cpt", "corpus"}), frozenset({"hf"}), frozenset({"hf"}))


def probe():
    return {}


def behaviour(checkpoint):
    return None
"""
"""What a back end says of itself; what it does is to follow."""

BACK_END = (
    FACE
    + """

def completeness(directory):
    return Completeness()


def run(spec, ctx):
    settings = spec.settings
    found = ctx.saves.newest_valid()
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
"""
)
"""Waits, step by step, and saves each step; does what its settings say at the step that they name."""

PIPELINE = """
name: waits
model: {base: ./nowhere}
stages:
  corpus: {kind: corpus, from: text.txt}
"""


def stage(
    name: str,
    *parents: str,
    resumable: bool = True,
    continuation: str | None = None,
    executor: str = "submitit",
    limit: str = "10:00",
    nodes: int = 1,
    **settings: Any,
) -> PlannedStage:
    """A stage of the back end that waits; ``settings``: steps, seconds, fail_at, die_at."""
    settings = {"steps": 3, "seconds": 0.05, **settings}
    local = executor == "local"
    inputs = {f"from-{parent}": PlannedInput(parent, "checkpoint", "hf", print_of(parent), True) for parent in parents}
    return PlannedStage(
        name=name,
        kind="cpt",
        backend="waiting",
        produces_kind="checkpoint",
        produces_format="hf",
        fingerprint=print_of(name),
        inputs=inputs,
        settings=settings,
        resources=Resources(nodes=nodes, time=None if local else limit, cpus=None if local else 1),
        executor=executor,
        continuation=continuation or ("none" if local or not resumable else "requeue"),
        python=sys.executable,
        launcher="python",
        target_step=settings["steps"] if resumable else None,
    )


def print_of(name: str) -> str:
    """Fingerprint of a stage of that name: the same in every run, so that runs share their store entries."""
    return model.fingerprint(test=name)


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
    if BACK_END:
        shared = run.paths.toolkit.resolve()
        run.paths.toolkit.unlink()
        shutil.copytree(shared, run.paths.toolkit)  # other runs keep the back ends that there are
        (run.paths.toolkit / "jobs" / "backends" / "waiting.py").write_text(BACK_END, encoding="utf-8")
    return run


def store_of(run: Run, name: str) -> StorePaths:
    """Store entry of a stage."""
    planned = run.plan().stage(name)
    return planned.store(run.workspace)


def submitted(
    run: Run,
    name: str,
    *jobs: str,
    number: int = 1,
    token: str = "aaaaaa",
    carrier: str = "slurm",
    links: int = 1,
    pid: int | None = None,
) -> Attempt:
    """What a submission leaves behind: the attempt, the ids that sbatch answered, and the journal."""
    naming = run.profile().job_name
    names = tuple(naming.of(run.id, name, token, link) for link in range(links))
    root = str(run.paths.stage(name).root)
    run.paths.stage(name).logs.mkdir(parents=True, exist_ok=True)
    attempt = Attempt(number, token, run.id, name, root, carrier, names, pid=pid or os.getpid())
    store = store_of(run, name)
    store.root.mkdir(parents=True, exist_ok=True)
    assert attempts.open_next(store, attempt)
    run.journal.write(Event.INTENT, stage=name, attempt=token, names=list(names))
    for link, job in enumerate(jobs):
        attempts.record_job(store, attempt, link, job)
        run.journal.write(Event.SUBMITTED, stage=name, attempt=token, link=link, job=job)
    return attempt


def started(run: Run, name: str, job: str, restart: int = 0, token: str = "aaaaaa", link: int = 0) -> None:
    """What the prologue of a job leaves behind."""
    assert claim.take(store_of(run, name), Claim(token, link, restart, job, "node1", time.time())) is None
    line = {"time": time.time(), "event": "start", "job": job, "restart": restart, "attempt": token}
    files.append_json_line(run.paths.stage(name).events, line)


def said(
    run: Run, name: str, job: str, outcome: Outcome, failure: FailureClass, evidence: str = "", **facts: Any
) -> None:
    """The verdict of a start."""
    verdict.write(run.paths.stage(name), Verdict(outcome, failure, evidence, job=job, **facts))


def sealed(
    run: Run, name: str, kind: seal.SealKind = seal.SealKind.CHECKPOINT, metrics: Any = None, job: str | None = None
) -> None:
    """The finished output of a stage."""
    store = store_of(run, name)
    store.output.mkdir(parents=True)
    if metrics is None:
        (store.output / "text").write_text("done", encoding="utf-8")
    else:
        results.write(store.output, {task: {"metrics": own} for task, own in metrics.items()})
    fingerprint = run.plan().stage(name).fingerprint
    seal.seal_directory(store.output, store.seal, kind=kind, format="hf", fingerprint=fingerprint)
    run.paths.stage(name).root.mkdir(parents=True, exist_ok=True)
    line = {"time": time.time() + 5, "event": "sealed", **({} if job is None else {"job": job})}
    files.append_json_line(run.paths.stage(name).events, line)


def row(
    run: Run,
    name: str,
    job: str,
    state: JobState,
    reason: str = "None",
    token: str = "aaaaaa",
    link: int = 0,
    start: float | None = None,
    nodes: str = "",
) -> QueueRow:
    """A row of squeue."""
    job_name = run.profile().job_name.of(run.id, name, token, link)
    return QueueRow(job, job_name, state, reason, time.time(), start, None, 1, nodes, "batch", "")
