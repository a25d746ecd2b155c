"""Every name inside the workspace, in one place. Nothing else joins path parts by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SAVE = re.compile(r"checkpoint-(\d+)\Z")
_OWN = re.compile(r"(?:output|saves)\.partial-([0-9a-z]+)\.(\d+)\.(\d+)\Z")


@dataclass(frozen=True)
class StorePaths:
    """One store entry: the output of a stage, shared by all runs whose fingerprint is the same."""

    root: Path

    @staticmethod
    def name_of(kind: str, fingerprint: str) -> str:
        """Name of the entry of a fingerprint (hex); 16 digits keep paths short, 64 bits keep them apart."""
        return f"{kind}-{fingerprint[:16]}"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def partial(self) -> Path:
        """Where a download is put together; renamed to ``output`` before the seal."""
        return self.root / "output.partial"

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

    @property
    def seal(self) -> Path:
        return self.root / "seal.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:04d}.json"

    def attempt_jobs(self, number: int) -> Path:
        return self.attempts / f"{number:04d}.jobs.json"

    @property
    def claims(self) -> Path:
        return self.root / "claims"

    @property
    def work(self) -> Path:
        """What a data stage has finished of its shards; it removes it at the end."""
        return self.root / "work"

    @property
    def saves(self) -> Path:
        return self.root / "saves"

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


@dataclass(frozen=True)
class ScriptPaths:
    """What one attempt at a stage submits. Kept apart by attempt: a job of an old attempt must read its own spec."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def host(self) -> Path:
        """Sourced by the batch shell: trap, prologue, watcher."""
        return self.root / "host.sh"

    @property
    def node(self) -> Path:
        """Started by srun on every node: the work."""
        return self.root / "node.sh"

    @property
    def container(self) -> Path:
        """What a container engine reads: image, mounts, working directory."""
        return self.root / "container.toml"

    def job(self, link: int) -> Path:
        """What sbatch gets: header of the executor around the two above."""
        return self.root / (f"job-{link}.sh" if link else "job.sh")


@dataclass(frozen=True)
class StagePaths:
    """One stage of one run: scripts, logs, progress and verdicts."""

    root: Path

    def scripts(self, attempt: str) -> ScriptPaths:
        return ScriptPaths(self.root / "attempts" / attempt)

    @property
    def secrets(self) -> Path:
        """Values of the secrets of the run (mode 0600); there may be none."""
        return RunPaths(self.root.parent.parent).secrets

    @property
    def progress(self) -> Path:
        return self.root / "progress.jsonl"

    @property
    def result(self) -> Path:
        """What the work says it did; the finish step turns it into a verdict."""
        return self.root / "result.json"

    @property
    def deadline(self) -> Path:
        """Epoch second at which the allocation ends, rewritten by the watcher."""
        return self.root / "deadline"

    @property
    def stop(self) -> Path:
        """Exists when the work must save and leave at the next step boundary."""
        return self.root / "stop"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def events(self) -> Path:
        """Append-only notes of the lifecycle: gates, resumes, saves skipped, verdicts."""
        return self.root / "events.jsonl"

    def log(self, job: str, restart: int) -> Path:
        return self.logs / f"{job}_{restart}.log"

    def ray_log(self, job: str, restart: int, node: str) -> Path:
        """What Ray said on one node of a job that runs beside a Ray cluster."""
        return self.logs / f"ray-{job}_{restart}-{node}.log"

    def ranks(self, job: str, restart: int) -> Path:
        """Holds one file a process of the work: host and process id, for the process that asks it for its stack."""
        return self.root / "ranks" / f"{job}_{restart}"

    def stall(self, job: str, restart: int) -> Path:
        """Exists when the work stands still: every node writes the stacks of its processes and ends them."""
        return self.root / f"stall-{job}_{restart}.json"

    def stack(self, job: str, restart: int, rank: int) -> Path:
        """Stacks of one process, written when it made no progress."""
        return self.logs / f"{job}_{restart}.rank{rank}.stack"

    def avoid(self, job: str) -> Path:
        """Nodes (comma-separated) that later runs of a job are to exclude."""
        return self.root / f"avoid-{job}"

    def behind(self, job: str) -> Path:
        """Id of the job that does the work of this one, a second copy."""
        return self.root / f"behind-{job}"

    def verdict(self, job: str, restart: int) -> Path:
        return self.root / f"verdict-{job}_{restart}.json"


@dataclass(frozen=True)
class RunPaths:
    """One run: what was submitted together."""

    root: Path

    @property
    def pipeline(self) -> Path:
        return self.root / "pipeline.yaml"

    @property
    def profile(self) -> Path:
        return self.root / "profile.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def emitted(self) -> Path:
        """The options of every stage's job, and the lines of profile and pipeline that they come from."""
        return self.root / "emitted.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def private(self) -> Path:
        """For the user alone (mode 0700)."""
        return self.root / "private"

    @property
    def secrets(self) -> Path:
        """Values of the secrets, sourced by the jobs (mode 0600)."""
        return self.private / "secrets.sh"

    @property
    def toolkit(self) -> Path:
        """Link to the snapshot of our packages."""
        return self.root / "code" / "toolkit"

    @property
    def user_code(self) -> Path:
        """Link to the snapshot of the user's work tree, where the pipeline has ``code:``."""
        return self.root / "code" / "user"

    @property
    def boot(self) -> Path:
        """Start script of every job, addressed by path."""
        return self.toolkit / "overnight_job.py"

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    @property
    def results(self) -> Path:
        """The table of improvements, as JSON, written when the chain has ended."""
        return self.root / "results.json"

    def stage(self, name: str) -> StagePaths:
        return StagePaths(self.stages / name)


@dataclass(frozen=True)
class Workspace:
    """The directory on the shared file system that holds everything."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def probes(self) -> Path:
        """What ``overnight profile test`` writes."""
        return self.root / "probes"

    @property
    def code(self) -> Path:
        """Snapshots of our packages and of users' work trees by digest, shared by runs."""
        return self.root / "code"

    def code_snapshot(self, digest: str) -> Path:
        return self.code / digest

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def digests(self) -> Path:
        return self.cache / "digests.json"

    @property
    def back_ends(self) -> Path:
        """What back ends said when they were asked, see ``launch.plan.probe_cache``."""
        return self.cache / "back_ends.json"

    @property
    def seals(self) -> Path:
        """What the seals of the store say, see ``jobs.core.seal_index``."""
        return self.cache / "seals.json"

    @property
    def pins(self) -> Path:
        """What ``overnight fetch`` resolved: request -> exact revision."""
        return self.root / "pins.json"

    def run(self, run: str) -> RunPaths:
        return RunPaths(self.runs / run)

    def entry(self, kind: str, fingerprint: str) -> StorePaths:
        """Store entry of a fingerprint (hex)."""
        return StorePaths(self.store / StorePaths.name_of(kind, fingerprint))
