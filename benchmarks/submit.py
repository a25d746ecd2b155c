"""A chain of eight jobs into the queue of a real Slurm: Overnight, bare sbatch, NeMo-Run's Experiment, submitit.

The bound to keep: 1.3 times (importing the executors that the chain uses + eight bare sbatch calls) plus 1 s. Copying
our packages into the run (the snapshot) is no part of submitting and is reported by itself.

All sides submit eight chained jobs (``afterok``) into a partition that is DOWN, so that the jobs wait in the queue and
none takes the CPU from the next measurement. Every side is a fresh process: imports count, as they do for a user. The
libraries' own ways are compared with the same chain routed to that library alone, and used as their manuals say:
submitit with one executor, which spaces its submissions 0.2 s apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import toychain
from measure import OVERNIGHT, Cost, Spread, alternate, child, report

from launch.config.profile_file import locate

FACTOR = 1.3
ALLOWANCE = 1.0
FIRST_JOB = 1.5
"""Seconds of CPU until the first stage is printed as submitted."""

OF_SUBMITIT = 2.0
"""Times the CPU of submitit's own submissions."""

BARE = """
import importlib, subprocess, sys
# What the two carriers of Overnight import.
for name in ("nemo_run", "nemo_run.run.torchx_backend.schedulers.slurm", "nemo_run.run.torchx_backend.packaging",
             "invoke.runners", "submitit.slurm.slurm"):
    importlib.import_module(name)
job = None
for number in range(8):
    edge = [f"--dependency=afterok:{job}"] if job else []
    command = ["sbatch", "--parsable", *edge, "--time=10", "--output=/dev/null", sys.argv[1]]
    job = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()
"""

NEMO_RUN = """
import nemo_run as run
def executor():
    return run.SlurmExecutor(account=None, job_name_prefix="overnight", time="10", nodes=1, ntasks_per_node=1,
                             tunnel=run.LocalTunnel(job_dir=""), packager=run.Packager(), srun_args=[])
with run.Experiment("eight") as experiment:
    before = None
    for number in range(8):
        task = run.Script(inline="true")
        before = experiment.add(task, executor=executor(), name=f"stage{number}",
                                dependencies=[before] if before else None)
    experiment.run(detach=True, tail_logs=False)
"""

SUBMITIT = """
import sys
import submitit
job = None
executor = submitit.SlurmExecutor(folder=sys.argv[1])
for number in range(8):
    edge = {"dependency": f"afterok:{job.job_id}"} if job else {}
    executor.update_parameters(time=10, job_name=f"stage{number}", wckey=None, **edge)
    job = executor.submit(print, number)
"""


class Sides:
    """The four ways, each a fresh process in the environment of one cluster."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._pipeline = toychain.make(directory / "toy")
        self._template = toychain.fetched(self._pipeline, directory / "template")
        self.snapshots: list[float] = []

    def overnight(self, carrier: str | None = None) -> Cost:
        """Submit the chain; ``carrier``: all of it by this executor, else data and evaluation by submitit and training
        by NeMo-Run, as it is by default."""
        workspace = toychain.fresh(self._template, self._directory / "workspace")
        cluster = "devcluster" if carrier is None else str(self._profile(carrier))
        command = [*OVERNIGHT, "submit", self._pipeline, "--cluster", cluster, "--workspace", workspace, "--json"]
        cost = self._measured(command)
        self.snapshots.append(json.loads(cost.output.splitlines()[-1])["snapshot_seconds"])
        return cost

    def first_job(self) -> float:
        """CPU of the chain, children that have ended included, when its first stage is printed: its job is queued."""
        workspace = toychain.fresh(self._template, self._directory / "workspace")
        command = [*OVERNIGHT, "submit", self._pipeline, "--cluster", "devcluster", "--workspace", workspace]
        given = {name: value for name, value in self._environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen([str(part) for part in command], env=given, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        next(line for line in process.stdout if " submitted " in line)
        numbers = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        process.stdout.read()
        process.wait()
        self._remove_jobs()
        return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")

    def _remove_jobs(self) -> int:
        jobs = self._slurm("squeue", "--noheader", "--format=%A").split()
        self._slurm("scancel", *jobs)
        return len(jobs)

    def _profile(self, carrier: str) -> Path:
        path = self._directory / f"{carrier}.yaml"
        routing = f"executors: {{default: {carrier}, training: {carrier}}}\n"
        path.write_text(locate("devcluster").read_text(encoding="utf-8") + routing, encoding="utf-8")
        return path

    def bare(self) -> Cost:
        script = self._directory / "bare.sh"
        script.write_text("#!/bin/bash\ntrue\n", encoding="utf-8")
        return self._measured([sys.executable, "-c", BARE, script])

    def nemo_run(self) -> Cost:
        return self._measured([sys.executable, "-c", NEMO_RUN])

    def submitit(self) -> Cost:
        return self._measured([sys.executable, "-c", SUBMITIT, self._directory / "submitit"])

    def _measured(self, command: list[str | Path]) -> Cost:
        """Run, make sure that eight jobs came of it, and remove them."""
        cost = child(command, environment={**self._environment, "NEMORUN_HOME": str(self._directory / "nemorun-home")})
        found = self._remove_jobs()
        if found != toychain.STAGES:
            raise RuntimeError(f"{command[:3]}: {found} jobs in the queue\n{cost.output[-2000:]}")
        return cost

    def _slurm(self, *command: str) -> str:
        return subprocess.run(
            command, env=dict(self._environment), capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def close_partition(self) -> None:
        """Jobs are accepted and wait."""
        self._slurm("scontrol", "update", "partition=batch", "state=DOWN")


def main() -> None:
    with toychain.scratch() as directory, toychain.slurm(directory) as environment:
        sides = Sides(directory, environment)
        sides.close_partition()
        found = alternate(
            {
                "overnight submit": sides.overnight,
                "imports + 8 bare sbatch": sides.bare,
                "overnight submit, all by NeMo-Run": partial(sides.overnight, "nemo_run"),
                "NeMo-Run's own Experiment": sides.nemo_run,
                "overnight submit, all by submitit": partial(sides.overnight, "submitit"),
                "submitit's own submit": sides.submitit,
                "CPU until the first job is queued": sides.first_job,
            }
        )
        first = Spread.of(found.pop("CPU until the first job is queued"))
        print("chain of 8 jobs, seconds: median (lowest to highest)")
        report("CPU until the first job is queued", first, f"{FIRST_JOB} s", first.median < FIRST_JOB)
        walls = {name: Spread.of([cost.wall for cost in costs]) for name, costs in found.items()}
        cpu = {name: Spread.of([cost.cpu for cost in costs]) for name, costs in found.items()}
        for name in found:
            report(f"{name}, wall", walls[name])
            report(f"{name}, CPU", cpu[name])
        snapshot = Spread.of(sides.snapshots)
        report("of it making the run directory with the snapshot", snapshot)
        ours = walls["overnight submit"].median - snapshot.median
        bound = FACTOR * walls["imports + 8 bare sbatch"].median + ALLOWANCE
        report("overnight submit without snapshot, wall", f"{ours:.3f}", f"{bound:.3f}", ours < bound)
        for mine, theirs in (
            ("overnight submit", "NeMo-Run's own Experiment"),
            ("overnight submit, all by NeMo-Run", "NeMo-Run's own Experiment"),
            ("overnight submit, all by submitit", "submitit's own submit"),
        ):
            ratio = walls[mine].median / walls[theirs].median
            report(f"{mine} / {theirs}, wall", f"{ratio:.2f}", "below 1", ratio < 1)
            ratio = cpu[mine].median / cpu[theirs].median
            most = OF_SUBMITIT if theirs.startswith("submitit") else 1.0
            report(f"{mine} / {theirs}, CPU", f"{ratio:.2f}", f"{most}", ratio <= most)


if __name__ == "__main__":
    main()
