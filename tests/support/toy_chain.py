"""A small chain for tests that goes through the real commands: files of ours as data, the ``toy`` back end as trainer."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.core import files, seal
from jobs.core.paths import StagePaths, StorePaths, Workspace
from tests.support import commands
from tests.support.base_model import complete

ROOT = Path(__file__).parents[2]

STAGES = """\
  corpus: {kind: corpus, from: ./raw, document_chars: 400}
  pairs: {kind: instructions, from: ./sft.jsonl}
  prefs: {kind: preferences, from: ./prefs.jsonl}
  cpt: {kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 12, lr: 0.5, batch_size: 8}
  sft: {kind: sft, backend: toy, checkpoint: cpt, data: pairs, steps: 12, lr: 0.5, batch_size: 8}
  dpo: {kind: dpo, backend: toy, checkpoint: sft, data: prefs, steps: 12, lr: 0.5, batch_size: 8, beta: 0.1}
"""


def write_inputs(directory: Path) -> None:
    """A corpus, instructions, preferences and a base model of a few KB."""
    (directory / "raw").mkdir(parents=True)
    for part in range(80):
        lines = (
            f"The number after {n} is {n + 1}. Place {n % 7} has the town {n % 5}.\n" for n in range(part, part + 5)
        )
        (directory / "raw" / f"{part:02d}.txt").write_text("".join(lines))
    with open(directory / "sft.jsonl", "w") as stream:
        for n in range(200):
            stream.write(json.dumps({"prompt": f"After {n}? ", "completion": f"{n + 1}"}) + "\n")
    with open(directory / "prefs.jsonl", "w") as stream:
        for n in range(200):
            stream.write(json.dumps({"prompt": f"After {n}? ", "chosen": f"{n + 1}", "rejected": f"{n + 2}"}) + "\n")
    base = directory / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    complete(base)


@dataclass
class Chain:
    """A pipeline in ``directory`` with a workspace of its own there."""

    directory: Path
    cluster: str = "local"
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path, stages: str = STAGES, **more: Any) -> Chain:
        write_inputs(directory)
        chain = cls(directory, **more)
        chain.write(stages)
        return chain

    def write(self, stages: str) -> None:
        self.pipeline.write_text(f"name: toy-chain\nseed: 3\nmodel: {{base: ./base}}\nstages:\n{stages}")

    @property
    def pipeline(self) -> Path:
        return self.directory / "pipeline.yaml"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.directory / "workspace")

    def overnight(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command; a failure shows what it printed."""
        done = commands.overnight(*arguments, cwd=ROOT, environment=self.variables, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"overnight {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    @property
    def variables(self) -> dict[str, str]:
        state = str(self.directory / "state")
        own = {"OVERNIGHT_WORKSPACE": str(self.workspace.root), "XDG_STATE_HOME": state, "PYTHONPATH": str(ROOT)}
        return {**os.environ, **own, **self.environment}

    def fetch(self) -> None:
        self.overnight("fetch", str(self.pipeline))

    def start(self, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``run`` it here, or ``submit`` it, as the profile says."""
        verb = "run" if self.cluster == "local" else "submit"
        return self.overnight(verb, str(self.pipeline), "--cluster", self.cluster, *more, check=check)

    def plan(self, *more: str) -> dict[str, dict[str, Any]]:
        """The planned stages by name, as ``plan --json`` prints them."""
        done = self.overnight("plan", str(self.pipeline), "--cluster", self.cluster, "--json", *more)
        return {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}

    @property
    def first_run(self) -> str:
        return min(self.workspace.runs.iterdir(), key=lambda path: (path / "plan.json").stat().st_mtime_ns).name

    @property
    def newest_run(self) -> str:
        return max(self.workspace.runs.iterdir(), key=lambda path: (path / "plan.json").stat().st_mtime_ns).name

    def stage(self, name: str, run: str | None = None) -> StagePaths:
        return self.workspace.run(run or self.newest_run).stage(name)

    def events(self, name: str, run: str | None = None) -> list[dict[str, Any]]:
        return list(files.read_json_lines(self.stage(name, run).events))

    def started(self, run: str | None = None) -> set[str]:
        """Stages that did work in a run."""
        paths = self.workspace.run(run or self.newest_run)
        return {
            entry.name
            for entry in paths.stages.iterdir()
            if any(line["event"] == "start" for line in self.events(entry.name, run))
        }

    def entry(self, name: str, *more: str) -> StorePaths:
        """Store entry of a stage of the pipeline as it is written now."""
        stage = self.plan(*more)[name]
        return self.workspace.entry(stage["produces_kind"], stage["fingerprint"])

    def seal(self, name: str) -> seal.Seal:
        return seal.load(self.entry(name).seal)
