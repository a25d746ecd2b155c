"""CPU of ``overnight status`` for a run of 1,000 jobs: one squeue, no sacct, under 0.5 s.

The run directory is a real one, made with our own functions; squeue is a program that prints 1,000 prepared rows, since
no controller here has so many jobs. A quarter of the stages is sealed, one runs, the rest waits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from measure import OVERNIGHT, PAIRS, Spread, child, report

from jobs.core import attempts, claim, files, hashing, seal
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import Workspace
from jobs.core.progress import ProgressWriter
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Resources
from launch.config.profile_file import read_profile
from launch.plan import model
from launch.plan.model import Plan, PlannedInput, PlannedStage
from launch.runs import rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm import queue

STAGES = 1000
SEALED = STAGES // 4
LIMIT = 0.5

PIPELINE = "name: many\nmodel: {base: ./nowhere}\nstages:\n  corpus: {kind: corpus, from: text.txt}\n"


def stage(number: int) -> PlannedStage:
    """Stage of a long chain."""
    parent = f"stage-{number - 1}"
    inputs = {"checkpoint": PlannedInput(parent, "checkpoint", "hf", model.fingerprint(stage=parent), True)}
    name = f"stage-{number}"
    return PlannedStage(
        name=name,
        kind="cpt",
        backend="trl",
        produces_kind="checkpoint",
        produces_format="hf",
        fingerprint=model.fingerprint(stage=name),
        inputs=inputs if number else {},
        settings={"steps": 100},
        resources=Resources(time="1:00:00"),
        executor="submitit",
        continuation="requeue",
        python=sys.executable,
        launcher="python",
        target_step=100,
    )


def submitted(directory: Path, stages: Sequence[PlannedStage], sealed: int) -> tuple[Run, list[tuple[str, str]]]:
    """A run of submitted stages, of which so many are sealed and the next one runs; name and id of each job."""
    (directory / "many.yaml").write_text(PIPELINE, encoding="utf-8")
    (directory / "site.yaml").write_text("executor: slurm\n", encoding="utf-8")
    plan = Plan("many", tuple(stages), (), sys.executable)
    pipeline, profile = read_pipeline(directory / "many.yaml"), read_profile(directory / "site.yaml")
    run = rundir.create(Workspace(directory / "workspace"), pipeline, profile, plan)
    jobs = []
    with open(run.paths.journal, "a", encoding="utf-8") as stream:
        for number, planned in enumerate(plan.stages):
            name, job = submit(run, planned, number, sealed)
            jobs.append((name, job))
            for line in (
                {"time": time.time(), "event": Event.INTENT, "stage": planned.name, "names": [name]},
                {"time": time.time(), "event": Event.SUBMITTED, "stage": planned.name, "link": 0, "job": job},
            ):
                stream.write(json.dumps(line) + "\n")
    return run, jobs


def make_run(directory: Path, stages: int = STAGES, sealed: int = SEALED) -> Run:
    """A run of so many submitted stages, of which the first are sealed and the next one runs; and what Slurm says."""
    run, jobs = submitted(directory, list(map(stage, range(stages))), sealed)
    left = list(enumerate(jobs))[sealed:]
    rows = [row(job, name, running=number == sealed) for number, (name, job) in left]
    accounts = [account(job, name) for _, (name, job) in left]
    (directory / "squeue.rows").write_text("".join(rows), encoding="utf-8")
    (directory / "sacct.rows").write_text("".join(accounts), encoding="utf-8")
    return run


def seal_output(run: Run, planned: PlannedStage, kind: seal.SealKind, form: str, names: list[str]) -> None:
    """Seal these files of a stage's output; not on disk when it returns."""
    store = planned.store(run.workspace)
    entries = hashing.digest_files(store.output, names)
    made = seal.Seal(kind, form, planned.fingerprint, entries, run=run.id, stage=planned.name)
    store.seal.write_text(seal.as_text(made), encoding="utf-8")


def submit(run: Run, planned: PlannedStage, number: int, sealed: int) -> tuple[str, str]:
    """What a submission, and the job if it has begun, leave behind of one stage; its job's name and id."""
    store = planned.store(run.workspace)
    paths = run.paths.stage(planned.name)
    name, job = run.profile().job_name.of(run.id, planned.name, "abcdef", 0), str(1000 + number)
    for path in (store.attempts, paths.logs):
        path.mkdir(parents=True)
    attempt = Attempt(1, "abcdef", run.id, planned.name, str(paths.root), "slurm", (name,))
    # Not by the durable functions of ours: 4,000 fsyncs would take minutes and change nothing that is read.
    store.attempt(1).write_text(json.dumps({**vars(attempt), "job_names": [name]}), encoding="utf-8")
    store.attempt_jobs(1).write_text(json.dumps({"0": job}), encoding="utf-8")
    assert number or attempts.current(store) == attempt
    if number <= sealed:
        assert claim.take(store, Claim("abcdef", 0, 0, job, "node1", time.time())) is None
        for event in ("file_gate", "start", "sealed", "verdict"):
            files.append_json_line(paths.events, {"time": time.time(), "event": event, "job": job}, durable=False)
    if number < sealed:
        store.output.mkdir()
        (store.output / "weights").write_text("weights\n", encoding="utf-8")
        seal_output(run, planned, seal.SealKind.CHECKPOINT, "hf", ["weights"])
    if number == sealed:
        writer = ProgressWriter(paths.progress)
        for step in range(1000):
            writer.report(step, 2000, "training", loss=1.0)
    return name, job


def row(job: str, name: str, running: bool) -> str:
    """A row as squeue prints it."""
    now = f"{time.time():.0f}"
    state, start, node, reason = ("RUNNING", now, "node1", "None") if running else ("PENDING", "N/A", "", "Dependency")
    fields = [job, state, now, start, "N/A", "1", node, "batch", name, "(null)", reason]
    return "\x1e" + "\x1f".join(fields) + "\n"


def account(job: str, name: str) -> str:
    """A row as sacct prints it, of a job that ended without a verdict."""
    now = f"{time.time():.0f}"
    return "\x1f".join([job, "NODE_FAIL", "0:0", now, now, now, "node1", name]) + "\n"


def programs(directory: Path) -> dict[str, str]:
    """Stand-ins for squeue and sacct that print a file and note each call; the environment that finds them."""
    where = directory / "bin"
    where.mkdir()
    for name in ("squeue", "sacct"):
        text = f"#!/bin/sh\necho {name} >>{directory}/calls\ncat {directory}/{name}.rows\n"
        (where / name).write_text(text, encoding="utf-8")
        (where / name).chmod(0o755)
    return {**os.environ, "PATH": f"{where}:{os.environ['PATH']}"}


def measure(label: str, directory: Path, run: Run, environment: dict[str, str], expected: dict[str, int]) -> None:
    """CPU of ``overnight status`` with its children and the calls of Slurm's commands."""
    calls = directory / "calls"
    command = [*OVERNIGHT, "status", run.id, "--workspace", run.workspace.root, "--json"]
    costs = []
    for _ in range(PAIRS + 1):
        calls.unlink(missing_ok=True)
        costs.append(child(command, environment=environment, expected=(0, 1)))
    states = Counter(entry["state"] for entry in json.loads(costs[-1].output)["stages"])
    assert states == expected, states
    used = Spread.of([cost.cpu for cost in costs[1:]])
    report(f"{label}, CPU seconds", used, f"{LIMIT} s", used.median < LIMIT)
    said = Counter(calls.read_text(encoding="utf-8").split())
    report("  Slurm's commands", ", ".join(f"{count} {name}" for name, count in said.items()))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="onb-") as name:
        directory = Path(name)
        assert queue.parse_squeue(row("1", "on-x", True))[0].state.is_running
        assert queue.parse_sacct(account("1", "on-x"))[0].job_id == "1"
        # The list of workspaces of whoever runs this stays as it is.
        os.environ["XDG_STATE_HOME"] = name
        run = make_run(directory)
        environment = programs(directory)
        print(f"overnight status of a run of {STAGES} jobs")
        waiting = STAGES - SEALED - 1
        measure("queued", directory, run, environment, {"sealed": SEALED, "running": 1, "waiting": waiting})
        # A controller that has forgotten all of them: only accounting can tell.
        (directory / "squeue.rows").write_text("", encoding="utf-8")
        measure("forgotten by squeue", directory, run, environment, {"sealed": SEALED, "failed": waiting + 1})


if __name__ == "__main__":
    main()
