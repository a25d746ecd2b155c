"""One start of one job: who it is, what it notes, what it claims, where it writes."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from jobs.core import claim, files, redaction
from jobs.core.claim import Claim, ClaimLost
from jobs.core.paths import StagePaths
from jobs.core.patience import Patience
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.lifecycle import nodes


class EndedBy(str, Enum):
    """Why the batch script ends, as host.sh reads it from Slurm."""

    ITSELF = "itself"
    LIMIT = "limit"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Start:
    """This start of this job. ``restart`` counts from 0 (Slurm leaves SLURM_RESTART_COUNT unset on the first).

    ``attempt``: token of the submission. It is in every note of a start: ids of jobs come again where a controller has
    lost its state. ``spread``: every node starts processes of ours that do its work.
    """

    job: str
    restart: int
    link: int
    host: str
    nodes: tuple[str, ...] = field(default=())
    attempt: str = ""
    spread: bool = False

    @classmethod
    def from_environment(cls, attempt: str = "") -> Start:
        env = os.environ
        return cls(
            job=env.get("SLURM_JOB_ID") or env["OVERNIGHT_JOB_ID"],
            restart=int(env.get("SLURM_RESTART_COUNT") or env.get("OVERNIGHT_RESTART") or 0),
            link=int(env.get("OVERNIGHT_LINK") or 0),
            host=socket.gethostname(),
            nodes=nodes.expand(env.get("SLURM_JOB_NODELIST", "")),
            attempt=attempt,
            spread=env.get("OVERNIGHT_SPREAD") == "1",
        )


def event(stage: StagePaths, start: Start, name: str, **facts: Any) -> None:
    """Note something that happened, for people and for ``status``; also printed into the job's log."""
    facts = redaction.shown(facts, stage.secrets)
    line = {"time": time.time(), "event": name, "job": start.job, "restart": start.restart}
    line |= {"attempt": start.attempt} if start.attempt else {}
    line |= facts
    files.append_json_line(stage.events, line)
    detail = " ".join(f"{key}={value}" for key, value in facts.items())
    print(f"overnight: {name} {detail}".rstrip(), file=sys.stderr, flush=True)


def write_result(spec: StageSpec, start: Start, value: dict[str, Any]) -> None:
    """What the work says at its end, for the verdict (``publish.result_of`` reads it); nothing, where another start has
    taken the place of this one: the file is then that one's."""
    stage = spec.stage_paths
    own = {"job": start.job, "restart": start.restart, "attempt": start.attempt}
    told = {**redaction.shown(value, stage.secrets), **own}
    made = own_saves_of(spec, start) / stage.result.name

    def write() -> None:
        files.write_json(made, told)
        claim.check_held(spec.store_paths, claim_of(spec, start))
        try:
            claim.move(made, stage.result)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            files.write_json(stage.result, told)  # runs and store lie on two file systems: no step in one

    with contextlib.suppress(ClaimLost, FileNotFoundError):
        Patience().call(write)


def write_failure(spec: StageSpec, start: Start, failure: FailureClass, evidence: str, **facts: Any) -> None:
    """``write_result`` of a start that failed. ``facts``: ``source``, ``node`` or ``nodes``."""
    write_result(spec, start, {"outcome": "failed", "failure": failure.value, "evidence": evidence, **facts})


def notes(spec: StageSpec, start: Start | None, name: str) -> list[dict[str, Any]]:
    """The events ``name`` of the stage, oldest first; with ``start`` those of its job in this attempt."""
    return [
        line
        for line in files.read_json_lines(spec.stage_paths.events)
        if line.get("event") == name
        and (start is None or (line.get("job"), line.get("attempt")) == (start.job, spec.attempt))
    ]


def claim_of(spec: StageSpec, start: Start) -> Claim:
    """The claim that this start makes."""
    return Claim(spec.attempt, start.link, start.restart, start.job, start.host, time.time())


def output_of(spec: StageSpec, start: Start) -> Path:
    """Directory that this start of the job fills."""
    return spec.store_paths.partial_of(spec.attempt, start.link, start.restart)


def own_saves_of(spec: StageSpec, start: Start) -> Path:
    """Directory in which this start of the job writes its saves, until they are sealed."""
    return spec.store_paths.own_saves(spec.attempt, start.link, start.restart)


def newest_save(spec: StageSpec) -> int | None:
    """Step of the newest sealed save (by name and presence of its seal; the trainer verifies it in full); of an
    evaluation how many examples are measured, where it has begun."""
    if spec.kind == "evaluate":
        files.ask_again(spec.store_paths.work)
        return sum(_whole_lines(path, files.state(path)) for path in spec.store_paths.work.glob("*.jsonl")) or None
    files.ask_again(spec.store_paths.saves)  # another node may have made it a moment ago
    return next(iter(spec.store_paths.sealed_steps()), None)


@functools.lru_cache(maxsize=64)
def _whole_lines(path: Path, state: files.FileState | None) -> int:
    """How many lines of a file are whole; counted once while the file is the same."""
    with open(path, "rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
