"""Small real chains: eight stages of the ``toy`` back end, submitted by the real command to a real Slurm.

A ``Chain`` is a directory with inputs, a pipeline, a profile and a workspace of its own; ``overnight`` runs in it as a
user would run it. Its invariants are read from what the jobs left behind: seals, claims, events, journal, and the queue.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.core import claim, files, seal
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths, Workspace
from launch.config.profile_file import locate
from launch.plan import file
from launch.plan.model import Plan
from launch.slurm.client import Gateway
from launch.slurm.queue import QueueRow
from tests.support import commands
from tests.support.base_model import complete
from tests.support.slurm import Slurm

REPOSITORY = Path(__file__).parents[2]
OVERNIGHT = (sys.executable, "-P", "-m", "launch.cli")

_TRAINING: dict[str, Any] = {"backend": "toy", "steps": 20, "lr": 0.5, "batch_size": 8}
_PERPLEXITY = {"perplexity": {"data": "corpus"}}

STAGES: dict[str, dict[str, Any]] = {
    "corpus": {"kind": "corpus", "from": "raw/", "document_chars": 400},
    "pairs": {"kind": "instructions", "from": "./sft.jsonl"},
    "prefs": {"kind": "preferences", "from": "./prefs.jsonl"},
    "baseline": {"kind": "evaluate", "backend": "toy", "checkpoint": "base", "tasks": _PERPLEXITY},
    "cpt": {"kind": "cpt", "checkpoint": "base", "data": "corpus", **_TRAINING},
    "sft": {"kind": "sft", "checkpoint": "cpt", "data": "pairs", **_TRAINING},
    "dpo": {"kind": "dpo", "checkpoint": "sft", "data": "prefs", **_TRAINING},
    "final": {
        "kind": "evaluate",
        "backend": "toy",
        "checkpoint": "dpo",
        "tasks": _PERPLEXITY,
        "compare_to": "baseline",
    },
}
"""The whole chain; a test may take fewer of them."""

ALL = tuple(STAGES)
SHORT = ("corpus", "cpt")
"""Two stages, the second behind the first: the smallest thing with an edge."""


def make_inputs(directory: Path, texts: int = 80, rows: int = 300) -> None:
    """The user's files: texts, pairs, preferences, and a directory that passes for a model."""
    lines = [
        f"The number after {n} is {n + 1}. The capital of place {n % 7} is town {n % 5}.\n" for n in range(5 * texts)
    ]
    (directory / "raw").mkdir(parents=True)
    for number in range(texts):
        (directory / "raw" / f"{number}.txt").write_text("".join(lines[5 * number : 5 * number + 5]))
    _write_rows(directory / "sft.jsonl", ({"prompt": f"After {n}? ", "completion": f"{n + 1}"} for n in range(rows)))
    _write_rows(
        directory / "prefs.jsonl",
        ({"prompt": f"After {n}? ", "chosen": f"{n + 1}", "rejected": f"{n + 2}"} for n in range(rows)),
    )
    (directory / "tiny").mkdir()
    (directory / "tiny" / "config.json").write_text('{"model_type": "llama"}\n')
    complete(directory / "tiny")


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Job:
    """One job of a run as the queue shows it."""

    row: QueueRow
    run: str
    stage: str
    attempt: str

    def __str__(self) -> str:
        row = self.row
        return f"{row.job_id} {row.name} {row.state} {row.reason} {row.dependency}".rstrip()


class Chain:
    """A pipeline in a directory of its own, on one cluster."""

    def __init__(
        self,
        slurm: Slurm,
        directory: Path,
        stages: Collection[str] = ALL,
        *,
        seed: int = 3,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the inputs, the pipeline and the profile; nothing is fetched yet.

        Args:
            settings: stage -> further keys.
            profile: keys that replace those of the packaged ``devcluster`` profile.
        """
        self.slurm = slurm
        self.directory = directory
        self.workspace = Workspace(directory / "workspace")
        self.gateway = Gateway(slurm.slurm_conf)
        if not directory.exists():
            make_inputs(directory)
        self._write(stages, seed, settings or {}, profile or {})

    def _write(
        self, stages: Collection[str], seed: int, settings: Mapping[str, Mapping[str, Any]], profile: Mapping[str, Any]
    ) -> None:
        chosen = {name: {**stage, **settings.get(name, {})} for name, stage in STAGES.items() if name in stages}
        value = {"name": "toy-chain", "seed": seed, "model": {"base": "./tiny"}, "stages": chosen}
        number = len(list(self.directory.glob("pipeline-*.yaml")))
        self.pipeline = self.directory / f"pipeline-{number}.yaml"
        self.pipeline.write_text(yaml.safe_dump(value, sort_keys=False))
        packaged = yaml.safe_load(locate("devcluster").read_text())
        self.profile = self.directory / f"profile-{number}.yaml"
        self.profile.write_text(yaml.safe_dump({**packaged, **profile}, sort_keys=False))

    def beside(
        self,
        stages: Collection[str],
        *,
        seed: int = 3,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> Chain:
        """Another pipeline and profile in the same workspace, with the same inputs."""
        other = object.__new__(Chain)
        other.__dict__.update(self.__dict__)
        other._write(stages, seed, settings or {}, profile or {})
        return other

    def clone(self, directory: Path) -> Chain:
        """The same pipeline with a workspace of its own that holds what this one's holds; its inputs are shared."""
        twin = object.__new__(Chain)
        twin.__dict__.update(self.__dict__)
        twin.directory = directory
        twin.workspace = Workspace(directory / "workspace")
        directory.mkdir(parents=True)
        shutil.copytree(self.workspace.root, twin.workspace.root)
        return twin

    # Commands

    @property
    def environment(self) -> dict[str, str]:
        """Of ``overnight``: the cluster, the workspace, and no trace of this in the user's home."""
        return {
            **self.slurm.environment,
            "OVERNIGHT_WORKSPACE": str(self.workspace.root),
            "OVERNIGHT_DEVCLUSTER": str(self.slurm.directory),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Argument list of an ``overnight`` command; ``submit``, ``fetch`` and ``plan`` get pipeline and profile."""
        given = [str(argument) for argument in arguments]
        if name in ("submit", "fetch", "plan"):
            given = [str(self.pipeline), "--cluster", str(self.profile), *given]
        return [*OVERNIGHT, name, *given]

    def start(
        self,
        name: str,
        *arguments: str | Path,
        before: Collection[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command and let it run. ``before``: a command that runs it, such as a tracer."""
        return subprocess.Popen(
            [*before, *self.command(name, *arguments)],
            cwd=self.directory,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def overnight(
        self, name: str, *arguments: str | Path, code: int | None = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``code``: the exit code that it must have (None: any)."""
        if threading.current_thread() is not threading.main_thread():  # a fork has what other threads hold
            return ended(self.start(name, *arguments, environment=environment), code)
        given = self.command(name, *arguments)[len(OVERNIGHT) :]
        variables = {**self.environment, **(environment or {})}
        return checked(commands.overnight(*given, cwd=self.directory, environment=variables), code)

    def fetch(self) -> None:
        self.overnight("fetch")

    def submit(self, *arguments: str | Path) -> str:
        """Submit and return the run's id."""
        return str(json.loads(self.overnight("submit", "--json", *arguments).stdout)["run"])

    def submit_by_process(self) -> str:
        """Submit by a process that bears the command's name, for tests that look for what is left of it."""
        return str(json.loads(ended(self.start("submit", "--json")).stdout)["run"])

    def resume(self, run: str) -> dict[str, tuple[str, str | None]]:
        """Resume; stage -> (action, job)."""
        said = json.loads(self.overnight("resume", run, "--json").stdout)
        return {stage["stage"]: (stage["action"], stage["job"]) for stage in said["stages"]}

    def status(self, run: str) -> dict[str, Any]:
        """What ``status --json`` says, whatever its exit code."""
        value: dict[str, Any] = json.loads(self.overnight("status", run, "--json", code=None).stdout)
        return value

    def cancel(self, run: str, *arguments: str) -> None:
        self.overnight("cancel", run, *arguments)

    def doctor(self, run: str, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """What ``doctor --json`` finds, by kind."""
        said = json.loads(self.overnight("doctor", run, "--json", *arguments, code=code).stdout)
        return {finding["kind"]: finding for finding in said["findings"]}

    # What is on disk

    def runs(self) -> list[str]:
        """Ids of all runs, those that were cut off while they were made, too; oldest first."""
        found = list(self.workspace.runs.iterdir()) if self.workspace.runs.exists() else []
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_ctime_ns)]

    def plan(self, run: str) -> Plan:
        return file.load(self.workspace.run(run).plan)

    def plan_names(self, run: str) -> list[str]:
        return [stage.name for stage in self.plan(run).stages]

    def has_plan(self, run: str) -> bool:
        return self.workspace.run(run).plan.exists()

    def journal(self, run: str) -> list[dict[str, Any]]:
        return list(files.read_json_lines(self.workspace.run(run).journal))

    def stage(self, run: str, name: str) -> StagePaths:
        return self.workspace.run(run).stage(name)

    def store(self, run: str, name: str) -> StorePaths:
        planned = self.plan(run).stage(name)
        return planned.store(self.workspace)

    def events(self, name: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Notes of all jobs of a stage, of all runs, in order of time."""
        found = [line for run in self.runs() for line in files.read_json_lines(self.stage(run, name).events)]
        return sorted((line for line in found if kind in (None, line["event"])), key=lambda line: float(line["time"]))

    def claims(self, run: str, name: str) -> list[Claim]:
        """Claims of real jobs, of all attempts at a stage."""
        store = self.store(run, name)
        tokens = {path.name.partition(".")[0] for path in store.claims.iterdir() if not path.name.startswith(".")}
        found = [one for token in sorted(tokens) for one in claim.of_attempt(store, token)]
        return [one for one in found if one.job != claim.SUPERSEDED]

    def log(self, run: str, name: str) -> str:
        """All logs of a stage, for the message of a failed assertion."""
        logs = self.stage(run, name).logs
        return (
            "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(logs.glob("*")))
            if logs.exists()
            else ""
        )

    # The queue

    def jobs(self, rows: Iterable[QueueRow] | None = None) -> list[Job]:
        """Jobs of this chain's runs that the controller remembers, in the order of their submission."""
        runs = set(self.runs())
        found = []
        for row in self.gateway.squeue() if rows is None else rows:
            match = _JOB_NAME.match(row.name)
            if match and match["run"] in runs and not row.is_refusal:
                found.append(Job(row, match["run"], match["stage"], match["attempt"]))
        return sorted(found, key=lambda job: int(job.row.job_id))

    def wait(self, timeout: float = 300) -> None:
        """Wait until no job of this chain is alive."""
        wait_for_all([self], timeout)

    def release(self, *jobs: str) -> None:
        """Let held jobs go; default: all of this chain. (With ``sbatch: {hold: true}`` in the profile every job is.)"""
        waiting = (job.row for job in self.jobs() if not job.row.state.is_final)
        held = jobs or tuple(row.job_id for row in waiting if row.reason == "JobHeldUser")
        if held:
            self.slurm.run(["scontrol", "release", ",".join(held)])

    def sbatch_again(self, run: str, stage: str, token: str, *options: str) -> str:
        """Submit the very script of an attempt once more, by hand, as if Slurm had accepted it twice; the new id."""
        script = self.stage(run, stage).scripts(token).job(0)
        done = self.slurm.run(["sbatch", "--parsable", *options, script], cwd=script.parent)
        return done.stdout.strip().partition(";")[0]

    def wait_until(self, what: Callable[[], object], why: str, timeout: float = 120) -> None:
        """Wait until ``what()`` is true.

        Raises:
            AssertionError: it was not in time; ``why`` says what was waited for.
        """
        end = time.monotonic() + timeout
        while not what():
            if time.monotonic() >= end:
                jobs = "\n".join(map(str, self.jobs()))
                raise AssertionError(f"waited {timeout:.0f} s for {why}\n{jobs}")
            time.sleep(0.2)

    # Invariants

    def assert_done_once(
        self, run: str, stages: Collection[str] | None = None, failed_before: Collection[str] = ()
    ) -> None:
        """Every stage of ``run`` is sealed and sound, its work was started and sealed once, in all runs together; no
        job is left; the journals explain every job that there ever was. Those of ``failed_before`` were started again
        after they had failed."""
        plan = self.plan(run)
        for stage in plan.stages:
            if stages is not None and stage.name not in stages:
                continue
            why = f"stage {stage.name} of run {run}\n{self.story(run, stage.name)}"
            store = self.store(run, stage.name)
            assert store.seal.exists(), f"not sealed: {why}"
            sealed = seal.verify(store.output, store.seal)
            starts, seals = self.events(stage.name, "start"), self.events(stage.name, "sealed")
            # Slurm may have started a job again under its id: its node has died (slurmd of 22.05 does crash at times).
            once = len({line["job"] for line in starts}) == 1 and len({line["restart"] for line in starts}) == len(
                starts
            )
            assert once or stage.name in failed_before, f"{len(starts)} starts: {why}"
            assert len(seals) == 1, f"{len(seals)} seals: {why}"
            claims = {one.job for one in self.claims(run, stage.name)}
            assert claims == {line["job"] for line in starts}, f"claims {claims}: {why}"
            assert starts[-1]["job"] == sealed.job, f"sealed by {sealed.job}: {why}"
            for role, parent in stage.inputs.items():
                above = self.workspace.entry(parent.kind, parent.fingerprint)
                assert sealed.parents[role] == seal.digest_of(above.seal), f"made from another {role}: {why}"
                before = self.events(parent.stage, "sealed")
                assert not before or before[0]["time"] <= starts[-1]["time"], f"started before its parent's seal: {why}"
        self.assert_queue_explained()

    def assert_queue_explained(self, alive: bool = False) -> None:
        """Every job was announced by name in its run's journal before it was made; none is alive unless ``alive``."""
        for job in self.jobs():
            announced = {
                name for entry in self.journal(job.run) if entry["event"] == "intent" for name in entry["names"]
            }
            assert job.row.name in announced, f"no intent for {job}\n{self.journal(job.run)}"
            assert alive or job.row.state.is_final, f"still alive: {job}"

    def workers(self, stage: str) -> set[str]:
        """Ids of the jobs that began the work of a stage."""
        return {str(line["job"]) for line in self.events(stage, "start")}

    def story(self, run: str, name: str) -> str:
        """All that is known of a stage, for the message of a failed assertion."""
        lines = [f"  event {line}" for line in self.events(name)]
        lines += [f"  journal {entry}" for entry in self.journal(run) if entry.get("stage") in (None, name)]
        lines += [f"  queue {job}" for job in self.jobs() if job.stage == name]
        return "\n".join(lines) + "\n" + self.log(run, name)[-4000:]


_JOB_NAME = re.compile(r"on-(?P<run>[0-9a-z]{5})-(?P<stage>.+)-(?P<attempt>[0-9a-z]{6})(?:-\d{1,3})?\Z")


def ended(
    process: subprocess.Popen[str], code: int | None = 0, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Wait for a command; ``code``: the exit code that it must have (None: any)."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return checked(subprocess.CompletedProcess(process.args, process.returncode, out, err), code)


def checked(done: subprocess.CompletedProcess[str], code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """``done``, which must have ended with ``code`` (None: any)."""
    if code is not None and done.returncode != code:
        raise AssertionError(f"{done.args}: exit {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
    return done


def wait_for_all(chains: Iterable[Chain], timeout: float = 300) -> None:
    """Wait until no job of any of these chains is alive: one question at a time for all of them.

    Raises:
        AssertionError: lists the jobs that are.
    """
    end = time.monotonic() + timeout
    waiting = list(chains)
    while waiting:
        rows = [row for row in waiting[0].gateway.squeue() if not row.state.is_final]
        alive = {chain: chain.jobs(rows) for chain in waiting}
        waiting = [chain for chain in waiting if alive[chain]]
        if waiting and time.monotonic() >= end:
            text = "\n".join(str(job) for chain in waiting for job in alive[chain])
            raise AssertionError(f"alive after {timeout:.0f} s:\n{text}")
        time.sleep(0.5)


def by_stage(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """Jobs grouped by stage."""
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.stage].append(job)
    return found


def wrapper(directory: Path, name: str, body: str) -> dict[str, str]:
    """Environment in which ``name`` is a bash script of this body; ``$REAL`` in it is the command itself."""
    real = shutil.which(name)
    assert real is not None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/bash\nREAL={real}\n{body}\n")
    path.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}
