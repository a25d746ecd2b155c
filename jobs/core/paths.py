"""Every name inside the workspace, in one place. Nothing else joins path parts by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SAVE = re.compile(r"checkpoint-(\d+)\Z")
_OWN = re.compile(r"(?:output|saves)\.partial-([0-9a-z]+)\.(\d+)\.(\d+)\Z")


class Below:
    """A path below the ``root`` of an object: an attribute of its class, which is put together once."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    def __get__(self, owner: Any, kind: type) -> Path:
        path: Path = owner.root / self._name
        vars(owner)[self._attribute] = path  # found before this method from now on
        return path


@dataclass(frozen=True)
class Rooted:
    """A directory with names of ours in it."""

    root: Path


class StorePaths(Rooted):
    """One store entry: the output of a stage, shared by all runs whose fingerprint is the same."""

    @staticmethod
    def name_of(kind: str, fingerprint: str) -> str:
        """Name of the entry of a fingerprint (hex); 16 digits keep paths short, 64 bits keep them apart."""
        return f"{kind}-{fingerprint[:16]}"

    output = Below("output")
    partial = Below("output.partial")  # where a download is put together; renamed to ``output`` before the seal

    def partial_of(self, attempt: str, link: int, restart: int) -> Path:
        """Where one start of a job writes: its own, so that a start on a node that only seems dead cannot write into
        the output of the one that took over. Renamed to ``output`` before the seal."""
        return self.root / f"{self.partial.name}-{attempt}.{link:03d}.{restart:05d}"

    def own_saves(self, attempt: str, link: int, restart: int) -> Path:
        """Where one start of a job writes its saves, each renamed to ``saves/checkpoint-N`` once it is sealed."""
        return self.root / f"saves.partial-{attempt}.{link:03d}.{restart:05d}"

    def own_directories(self) -> list[tuple[Path, tuple[str, int, int]]]:
        """What starts write in, with attempt, link and restart of the owner."""
        found = [(path, _OWN.match(path.name)) for path in self.root.iterdir()]
        return [(path, (own[1], int(own[2]), int(own[3]))) for path, own in found if own]

    def partials(self) -> list[Path]:
        """Unsealed outputs of starts, the newest last."""
        return sorted(self.root.glob(f"{self.partial.name}-*"), key=lambda path: path.stat().st_mtime)

    seal = Below("seal.json")
    attempts = Below("attempts")

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:04d}.json"

    def attempt_jobs(self, number: int) -> Path:
        return self.attempts / f"{number:04d}.jobs.json"

    claims = Below("claims")
    work = Below("work")  # what a data stage has finished of its shards; it removes it at the end
    saves = Below("saves")

    def claim(self, attempt: str, link: int, restart: int) -> Path:
        return self.claims / f"{attempt}.{link:03d}.{restart:05d}"

    def save(self, step: int) -> Path:
        return self.saves / f"checkpoint-{step}"

    def save_steps(self) -> list[int]:
        """Steps that have a save directory (sealed or not), newest first."""
        try:
            names = [entry.name for entry in self.saves.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((int(found[1]) for name in names if (found := _SAVE.match(name))), reverse=True)

    def save_seal(self, step: int) -> Path:
        return self.save(step) / "seal.json"

    def sealed_steps(self) -> list[int]:
        """Steps whose save has a seal, newest first; the reader of the save verifies that it is valid."""
        return [step for step in self.save_steps() if self.save_seal(step).exists()]


class ScriptPaths(Rooted):
    """What one attempt at a stage submits. Kept apart by attempt: a job of an old attempt must read its own spec."""

    spec = Below("spec.json")
    host = Below("host.sh")  # sourced by the batch shell: trap, prologue, watcher
    node = Below("node.sh")  # started by srun on every node: the work
    container = Below("container.toml")  # what a container engine reads: image, mounts, working directory

    def job(self, link: int) -> Path:
        """What sbatch gets: header of the executor around the two above."""
        return self.root / (f"job-{link}.sh" if link else "job.sh")


class StagePaths(Rooted):
    """One stage of one run: scripts, logs, progress and verdicts."""

    def scripts(self, attempt: str) -> ScriptPaths:
        return ScriptPaths(self.root / "attempts" / attempt)

    @property
    def secrets(self) -> Path:
        """Values of the secrets of the run (mode 0600); there may be none."""
        return RunPaths(self.root.parent.parent).secrets

    progress = Below("progress.jsonl")
    result = Below("result.json")  # what the work says it did; the finish step turns it into a verdict
    stop = Below("stop")  # exists when the work must save and leave at the next step boundary
    logs = Below("logs")
    events = Below("events.jsonl")  # append-only notes of the lifecycle: gates, resumes, saves skipped, verdicts

    def log(self, job: str, restart: int) -> Path:
        return self.logs / f"{job}_{restart}.log"

    def ray_log(self, job: str, restart: int, node: str) -> Path:
        """What Ray said on one node of a job that runs beside a Ray cluster."""
        return self.logs / f"ray-{job}_{restart}-{node}.log"

    def ranks(self, job: str, restart: int) -> Path:
        """Holds one file a process of the work: host and process id, for the process that asks it for its stack."""
        return self.root / "ranks" / f"{job}_{restart}"

    def deadline(self, job: str, restart: int) -> Path:
        """Epoch second at which the allocation of a start ends, 0 for now; rewritten by the watcher of its batch shell.
        Of each start by itself: one that is taken for dead writes on."""
        return self.root / f"deadline-{job}_{restart}"

    def stall(self, job: str, restart: int) -> Path:
        """Exists when the work makes no step any more: every node writes the stacks of its processes and ends them."""
        return self.root / f"stall-{job}_{restart}.json"

    def stack(self, job: str, restart: int, rank: int) -> Path:
        """Stacks of one process, written when it made no progress."""
        return self.logs / f"{job}_{restart}.rank{rank}.stack"

    def server_log(self, restart: int, rank: int) -> Path:
        """What the server said that one process of an evaluation has started."""
        return self.logs / f"{restart}.rank{rank}.server"

    def avoid(self, job: str) -> Path:
        """Nodes (comma-separated) that later runs of a job are to exclude."""
        return self.root / f"avoid-{job}"

    def behind(self, job: str) -> Path:
        """Id of the job that does the work of this one, a second copy."""
        return self.root / f"behind-{job}"

    def verdict(self, job: str, restart: int) -> Path:
        return self.root / f"verdict-{job}_{restart}.json"


class RunPaths(Rooted):
    """One run: what was submitted together."""

    pipeline = Below("pipeline.yaml")
    profile = Below("profile.yaml")
    plan = Below("plan.json")

    # the options of every stage's job, and the lines of profile and pipeline that they come from
    emitted = Below("emitted.json")
    journal = Below("journal.jsonl")
    lock = Below("lock")
    private = Below("private")  # for the user alone (mode 0700)
    secrets = Below("private/secrets.sh")  # values of the secrets, sourced by the jobs (mode 0600)
    toolkit = Below("code/toolkit")  # link to the snapshot of our packages
    user_code = Below("code/user")  # link to the snapshot of the user's work tree, where the pipeline has ``code:``
    boot = Below("code/toolkit/overnight_job.py")  # start script of every job, addressed by path
    stages = Below("stages")
    results = Below("results.json")  # the table of improvements, as JSON, written when the chain has ended
    family = Below("family")  # id of the sweep that the run belongs to, where it belongs to one

    @property
    def boards(self) -> Path:
        """Event files for TensorBoard, a directory a stage."""
        return self.root / "tensorboard"

    @property
    def page(self) -> Path:
        """The report as a page for a browser."""
        return self.root / "report.html"

    @property
    def outbox(self) -> Path:
        """Letters about how the run ended, and which of them were sent."""
        return self.root / "outbox"

    @property
    def people(self) -> Path:
        """Sheets for people who judge answers, and what came of them, a directory a pair of stages."""
        return self.root / "people"

    @property
    def tracked(self) -> Path:
        """What trackers (W&B, MLflow) were told of each stage, and what they keep where there is no network."""
        return self.root / "tracked"

    def stage(self, name: str) -> StagePaths:
        return StagePaths(self.stages / name)


class FamilyPaths(Rooted):
    """The chains of one sweep, which are runs."""

    record = Below("family.json")
    journal = Below("journal.jsonl")
    lock = Below("lock")
    page = Below("report.html")
    outbox = Below("outbox")  # letters about how the family ended, and which of them were sent


class Workspace(Rooted):
    """The directory on the shared file system that holds everything."""

    store = Below("store")
    runs = Below("runs")
    families = Below("families")  # what was submitted with ``sweep:``
    probes = Below("probes")  # what ``overnight profile test`` writes
    code = Below("code")  # snapshots of our packages and of users' work trees by digest, shared by runs

    def code_snapshot(self, digest: str) -> Path:
        return self.code / digest

    cache = Below("cache")
    digests = Below("cache/digests.json")

    # what back ends said when they were asked, see ``launch.plan.probe_cache``
    back_ends = Below("cache/back_ends.json")
    harness = Below("cache/harness.json")
    seals = Below("cache/seals.index")  # what the seals of the store say, see ``jobs.core.seal_index``
    judgements = Below("cache/judgements")  # what judges said, see ``jobs.evaluate.judging.judges``
    pins = Below("pins.json")  # what ``overnight fetch`` resolved: request -> exact revision

    def run(self, run: str) -> RunPaths:
        return RunPaths(self.runs / run)

    def family(self, family: str) -> FamilyPaths:
        return FamilyPaths(self.families / family)

    def entry(self, kind: str, fingerprint: str) -> StorePaths:
        """Store entry of a fingerprint (hex)."""
        return StorePaths(self.store / StorePaths.name_of(kind, fingerprint))
