"""From a stage's end to the first line of the next stage's work, over what Slurm itself needs for a bare afterok pair.

Two chains of equal length run in turn on the same throw-away Slurm: Overnight's, and bare scripts that note the time in
their first and last line. Of Overnight's, the parent's end is the moment of its verdict (the last thing before its
batch shell exits) and the child's beginning is the first line of its back end, so claim, file gate (which reads the
whole checkpoint), the start of the job step and of Python all lie between. What the parent spends on sealing after its
work is added in a second set of lines.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import toychain
from measure import OVERNIGHT, PAIRS, Spread, child, report

from jobs.core import progress
from jobs.core.files import read_json_lines
from jobs.core.paths import StagePaths, Workspace

TARGET = 2.0
LARGE_MB = 512
PIPELINE = f"""\
name: handoff
model: {{base: ./base}}
stages:
  corpus: {{kind: corpus, from: ./texts/, document_chars: 400}}
  first: {{kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 2, lr: 0.5, nodes: 1}}
  small-nemo: {{kind: cpt, backend: toy, checkpoint: first, data: corpus, steps: 2, lr: 0.5, nodes: 1}}
  small-submitit:
    {{kind: cpt, backend: toy, checkpoint: small-nemo, data: corpus, steps: 2, lr: 0.5, nodes: 1, executor: submitit,
     options: {{ballast_mb: {LARGE_MB}}}}}
  large-nemo:
    {{kind: cpt, backend: toy, checkpoint: small-submitit, data: corpus, steps: 2, lr: 0.5, nodes: 1,
     options: {{ballast_mb: {LARGE_MB}}}}}
  large-submitit:
    {{kind: cpt, backend: toy, checkpoint: large-nemo, data: corpus, steps: 2, lr: 0.5, nodes: 1, executor: submitit}}
"""
EDGES = {
    "small checkpoint, NeMo-Run": ("first", "small-nemo"),
    "small checkpoint, submitit": ("small-nemo", "small-submitit"),
    f"{LARGE_MB} MiB checkpoint, NeMo-Run": ("small-submitit", "large-nemo"),
    f"{LARGE_MB} MiB checkpoint, submitit": ("large-nemo", "large-submitit"),
}
JOBS = 6

BARE = """\
#!/bin/bash
date +begin,%s.%N
sleep 0.5
date +end,%s.%N
"""


class Chains:
    """Both chains on one cluster."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        toychain.make(directory / "toy")
        self._pipeline = directory / "toy" / "handoff.yaml"
        self._pipeline.write_text(PIPELINE, encoding="utf-8")
        self._template = toychain.fetched(self._pipeline, directory / "template")

    def bare(self) -> list[float]:
        """Seconds of each edge of the bare chain."""
        script = self._directory / "bare.sh"
        script.write_text(BARE, encoding="utf-8")
        jobs: list[str] = []
        for _ in range(JOBS):
            edge = [f"--dependency=afterok:{jobs[-1]}"] if jobs else []
            log = f"--output={self._directory}/bare-%j.log"
            done = self._slurm("sbatch", "--parsable", "--time=10", "--cpus-per-task=2", log, *edge, str(script))
            jobs.append(done.strip())
        self._wait()
        lines = [(self._directory / f"bare-{job}.log").read_text(encoding="utf-8").split() for job in jobs]
        times = [{word: float(value) for word, value in (line.split(",") for line in each)} for each in lines]
        return [after["begin"] - before["end"] for before, after in pairwise(times)]

    def ours(self) -> dict[str, dict[str, float]]:
        """Of each edge: seconds from the parent's end, from the end of its work, and of the child's file gate."""
        workspace = toychain.fresh(self._template, self._directory / "workspace")
        shown = child(
            [*OVERNIGHT, "submit", self._pipeline, "--cluster", "devcluster", "--workspace", workspace, "--json"],
            environment=self._environment,
        ).output
        run = Workspace(workspace).run(json.loads(shown.splitlines()[-1])["run"])
        self._wait()
        return {name: _edge(run.stage(parent), run.stage(heir)) for name, (parent, heir) in EDGES.items()}

    def _wait(self) -> None:
        while self._slurm("squeue", "--noheader", "--format=%A"):
            time.sleep(1.0)

    def _slurm(self, *command: str) -> str:
        return subprocess.run(
            command, env=dict(self._environment), capture_output=True, text=True, check=True, timeout=60
        ).stdout


def _edge(parent: StagePaths, heir: StagePaths) -> dict[str, float]:
    verdict = next(line for line in read_json_lines(parent.events) if line["event"] == "verdict")
    if verdict["outcome"] != "done":
        raise RuntimeError(f"{parent.root.name}: {verdict}")
    first = next(progress.read(heir.progress))
    begin = first.time - first.metrics["seconds"]
    gates = [line["seconds"] for line in read_json_lines(heir.events) if line["event"] == "file_gate"]
    return {
        "from end": begin - verdict["time"],
        "from work": begin - parent.result.stat().st_mtime,
        "gate": sum(gates),
    }


def main() -> None:
    with toychain.scratch() as directory, toychain.slurm(directory) as environment:
        chains = Chains(directory, environment)
        bare: list[float] = []
        ours: dict[str, list[dict[str, float]]] = {name: [] for name in EDGES}
        for number in range(PAIRS + 1):
            seconds, found = chains.bare(), chains.ours()
            if number == 0:  # fills caches, does not count
                continue
            bare += seconds
            for name, edge in found.items():
                ours[name].append(edge)
    slurm = Spread.of(bare)
    print("seconds: median (lowest to highest)")
    report("bare afterok pair, end to first line", slurm)
    for name, edges in ours.items():
        values = Spread.of([edge["from end"] for edge in edges])
        over = values.median - slurm.median
        report(f"{name}: end to first line of work", values)
        report("  over the bare pair", f"{over:.3f}", f"{TARGET}", over <= TARGET)
        report("  of it the file gate", Spread.of([edge["gate"] for edge in edges]))
        sealed = Spread.of([edge["from work"] for edge in edges]).median - slurm.median
        report("  over the bare pair, with the parent's sealing", f"{sealed:.3f}", f"{TARGET}", sealed <= TARGET)


if __name__ == "__main__":
    main()
