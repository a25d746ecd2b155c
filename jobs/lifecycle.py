"""What surrounds the work, on the batch host: claim and file gate before it, seal and verdict after it.

Standard library only and no heavy import: a spare link or a broken checkpoint ends the job within a second or two.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

from jobs.core import attempts, files, seal, verdict
from jobs.core import claim as claims
from jobs.core.claim import Claim, ClaimLost
from jobs.core.paths import StagePaths
from jobs.core.spec import Input, StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict

GATE_WAIT_SECONDS = 60.0
"""How long a parent's seal may stay invisible (NFS caches a directory for up to 60 s, acdirmax)."""

BEHIND_WAIT_SECONDS = 5.0
"""How long the seal of a copy that was killed may stay invisible before it is taken to have left none."""

IDLE_RESTARTS = 3
"""Restarts in a row that may end without a verdict and a new save (preempted, node lost) before it is a loop."""


class Entry(IntEnum):
    """Exit codes of the prologue, read by host.sh."""

    WORK = 0
    SEALED = 20
    BEHIND = 21
    FAIL = 22


class Decision(str, Enum):
    """What host.sh does at the end; printed by ``finish``."""

    DONE = "done"
    REQUEUE = "requeue"
    NEXT_LINK = "next-link"
    FAIL = "fail"


class EndedBy(str, Enum):
    """Why the batch script ends, as host.sh reads it from Slurm."""

    ITSELF = "itself"
    LIMIT = "limit"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Start:
    """This start of this job. ``restart`` counts from 0 (Slurm leaves SLURM_RESTART_COUNT unset on the first)."""

    job: str
    restart: int
    link: int
    host: str

    @classmethod
    def from_environment(cls) -> Start:
        env = os.environ
        return cls(
            job=env.get("SLURM_JOB_ID") or env["OVERNIGHT_JOB_ID"],
            restart=int(env.get("SLURM_RESTART_COUNT") or env.get("OVERNIGHT_RESTART") or 0),
            link=int(env.get("OVERNIGHT_LINK") or 0),
            host=socket.gethostname(),
        )


def event(stage: StagePaths, start: Start, name: str, **facts: Any) -> None:
    """Note something that happened, for people and for ``status``; also printed into the job's log."""
    line = {"time": time.time(), "event": name, "job": start.job, "restart": start.restart, **facts}
    files.append_json_line(stage.events, line)
    detail = " ".join(f"{key}={value}" for key, value in facts.items())
    print(f"overnight: {name} {detail}".rstrip(), file=sys.stderr, flush=True)


def claim_of(spec: StageSpec, start: Start) -> Claim:
    """The claim that this start makes."""
    return Claim(spec.attempt, start.link, start.restart, start.job, start.host, time.time())


def output_of(spec: StageSpec, start: Start) -> Path:
    """Directory that this start of the job fills."""
    return spec.store_paths.partial_of(spec.attempt, start.link, start.restart)


def _conclude(
    spec: StageSpec, start: Start, outcome: Outcome, failure: FailureClass, evidence: str, step: int | None
) -> None:
    stage = spec.stage_paths
    verdict.write(stage, Verdict(outcome, failure, evidence, step, start.job, start.restart, start.host))
    event(stage, start, "verdict", outcome=outcome.value, failure=failure.value, evidence=evidence, step=step)


def prologue(spec: StageSpec, start: Start, over: str = "") -> Entry:
    """Claim the store entry and check the inputs; the return value says whether work may start.

    ``over``: a copy of this job that did the work and has ended; this one does not stand behind it again.
    """
    stage, store = spec.stage_paths, spec.store_paths
    if over:  # killed jobs say nothing; the seal of one that says that it is done has to appear
        files.wait_for(store.seal, GATE_WAIT_SECONDS if _said(spec, over) is Outcome.DONE else BEHIND_WAIT_SECONDS)
    if store.seal.exists():
        event(stage, start, "already_sealed", store=store.root.name)
        _conclude(spec, start, Outcome.DONE, FailureClass.NONE, "already sealed", spec.target_step)
        return Entry.SEALED
    entry = _take_claim(spec, start, over)
    if entry is not Entry.WORK:
        return entry
    problem = _judge_before(spec, start)
    if problem is not None:
        _conclude(spec, start, Outcome.FAIL, *problem, newest_save(spec))
        return Entry.FAIL
    try:
        gate(spec, start)
    except seal.SealBroken as error:
        missing = not error.path.exists()
        failure = FailureClass.MISSING_INPUT if missing else FailureClass.BROKEN_INPUT
        _conclude(spec, start, Outcome.FAIL, failure, str(error), None)
        return Entry.FAIL
    for stale in (stage.deadline, stage.stop, stage.result):
        stale.unlink(missing_ok=True)
    for stale in store.partials():
        shutil.rmtree(stale, ignore_errors=True)
    output_of(spec, start).mkdir(parents=True)
    event(stage, start, "start", host=start.host, attempt=spec.attempt, step=newest_save(spec) or 0)
    return Entry.WORK


def _take_claim(spec: StageSpec, start: Start, over: str) -> Entry:
    stage, store = spec.stage_paths, spec.store_paths
    current = attempts.current(store)
    if current is not None and current.token != spec.attempt:
        event(stage, start, "superseded", attempt=spec.attempt, by=current.token)
        return Entry.FAIL
    rival = claims.take(store, claim_of(spec, start))
    if rival is None:
        return Entry.WORK
    if rival.job == claims.SUPERSEDED:
        event(stage, start, "superseded", attempt=spec.attempt, by=rival.host)
        return Entry.FAIL
    if rival.job == over or _said(spec, rival.job) is Outcome.FAIL:
        evidence = f"job {rival.job}, the copy of this job that did its work, ended without a seal"
        _conclude(spec, start, Outcome.FAIL, FailureClass.KILLED, evidence, newest_save(spec))
        return Entry.FAIL
    event(stage, start, "claimed_by_another", rival=rival.job, host=rival.host)
    files.write_atomic(stage.root / f"behind-{start.job}", rival.job + "\n")
    return Entry.BEHIND


def _said(spec: StageSpec, job: str) -> Outcome | None:
    """What the newest start of a job concluded; None if it has not."""
    starts = [one for one in claims.of_attempt(spec.store_paths, spec.attempt) if one.job == job]
    newest = max(starts, key=lambda one: one.order, default=None)
    found = verdict.read(spec.stage_paths.verdict(job, newest.restart)) if newest else None
    return found.outcome if found else None


def newest_save(spec: StageSpec) -> int | None:
    """Step of the newest sealed save (by name and presence of its seal; the trainer verifies it in full)."""
    for step in spec.store_paths.save_steps():
        if (spec.store_paths.save(step) / "seal.json").exists():
            return step
    return None


def _judge_before(spec: StageSpec, start: Start) -> tuple[FailureClass, str] | None:
    """Look at the starts of this attempt before this one: a failed link ends the chain, no progress ends the loop."""
    stage = spec.stage_paths
    starts = [
        line for line in files.read_json_lines(stage.events)
        if line.get("event") == "start" and line.get("attempt") == spec.attempt
    ]  # fmt: skip
    if not starts:
        return None
    verdicts = {(found.job, found.restart): found for found in verdict.all_of(stage)}
    last = starts[-1]
    before = verdicts.get((last.get("job", ""), last.get("restart", 0)))
    if before is not None and before.outcome is Outcome.FAIL:
        return before.failure, f"job {before.job} failed before this link: {before.evidence}"
    now = newest_save(spec) or 0
    idle = 0
    for line in reversed(starts):
        if line.get("step", 0) != now:
            break
        idle += 1
    if before is None:
        event(stage, start, "no_verdict", of_job=last.get("job"), of_restart=last.get("restart"), newest_save=now)
    if before is not None and before.outcome is Outcome.DONE:
        return None  # it had finished; its seal was set aside since
    stopped_in_time = before is not None and before.failure is FailureClass.TIME_LIMIT
    if idle >= (1 if stopped_in_time else IDLE_RESTARTS):
        return FailureClass.NO_PROGRESS, f"{idle} start(s) in a row ended at step {now} without a newer save"
    return None


def gate(spec: StageSpec, start: Start) -> None:
    """File gate: verify every input against its seal, once per job.

    Raises:
        SealBroken: with the file at fault.
    """
    stage = spec.stage_paths
    passed = any(
        line.get("event") == "file_gate" and line.get("job") == start.job
        for line in files.read_json_lines(stage.events)
    )
    if passed:
        return
    for role, parent in spec.inputs.items():
        began = time.monotonic()
        found = _verify_input(parent)
        seconds = time.monotonic() - began
        event(stage, start, "file_gate", role=role, parent=parent.stage, bytes=found.bytes, seconds=round(seconds, 3))


def _verify_input(parent: Input) -> seal.Seal:
    paths = parent.paths
    found = seal.verify(parent.output, paths.seal, wait_seconds=GATE_WAIT_SECONDS)
    if found.fingerprint != parent.fingerprint:
        raise seal.SealBroken(
            paths.seal, f"is the seal of {found.fingerprint[:16]}, this stage was planned on {parent.fingerprint[:16]}"
        )
    return found


def finish(spec: StageSpec, start: Start, exit_code: int, ended_by: EndedBy = EndedBy.ITSELF) -> str:
    """Turn what the work left behind into a seal and a verdict; returns the ``Decision`` for host.sh."""
    stage = spec.stage_paths
    known = verdict.read(stage.verdict(start.job, start.restart))
    if known is not None:
        return _decision(spec, start, known)
    result = files.read_json_or_none(stage.result) or {}
    if result.get("job") != start.job or result.get("restart") != start.restart:
        result = {}
    try:
        outcome, failure, evidence, step = _judge(spec, start, result, exit_code, ended_by)
    except (ClaimLost, seal.SealBroken, OSError) as error:
        outcome, failure, evidence, step = Outcome.FAIL, verdict.classify(error), str(error), None
    _conclude(spec, start, outcome, failure, evidence, step)
    return _decision(spec, start, Verdict(outcome, failure, evidence, step, start.job, start.restart, start.host))


def _decision(spec: StageSpec, start: Start, found: Verdict) -> str:
    if found.outcome is Outcome.DONE:
        return Decision.DONE.value
    if found.outcome in (Outcome.CONTINUE, Outcome.RETRY):
        if spec.continuation == "requeue":
            return Decision.REQUEUE.value
        if spec.continuation == "chain" and start.link + 1 < spec.links:
            return Decision.NEXT_LINK.value
    return Decision.FAIL.value


def _judge(
    spec: StageSpec, start: Start, result: dict[str, Any], exit_code: int, ended_by: EndedBy
) -> tuple[Outcome, FailureClass, str, int | None]:
    said, step = result.get("outcome"), result.get("step")
    if said != "done" and ended_by is EndedBy.CANCELLED:
        saved = newest_save(spec)
        text = "cancelled in Slurm" + (f"; saved up to step {saved}, resume goes on from there" if saved else "")
        return Outcome.FAIL, FailureClass.CANCELLED, text, saved
    if said != "done" and ended_by is EndedBy.REQUEUED:
        # Slurm starts it again whatever we say; IDLE_RESTARTS bounds how often that may bring nothing.
        return Outcome.CONTINUE, FailureClass.PREEMPTED, "requeued by Slurm", newest_save(spec)
    if said == "done":
        if spec.target_step is not None and (step is None or step < spec.target_step):
            return Outcome.FAIL, FailureClass.CODE_ERROR, f"said done at step {step}, target {spec.target_step}", step
        publish(spec, start, result)
        return Outcome.DONE, FailureClass.NONE, "", step
    if said == "stopped":
        if spec.continuation == "none":
            text = f"stopped at step {step}, saved; resume goes on from there"
            return Outcome.FAIL, FailureClass.CANCELLED, text, step
        if spec.continuation == "chain" and start.link + 1 >= spec.links:
            text = f"the last of {spec.links} links ended at step {step} of {spec.target_step}; resume adds links"
            return Outcome.FAIL, FailureClass.TIME_LIMIT, text, step
        return Outcome.CONTINUE, FailureClass.TIME_LIMIT, result.get("reason", ""), step
    if said == "failed":
        return Outcome.FAIL, FailureClass(result["failure"]), result.get("evidence", ""), step
    return _judge_silence(spec, start, exit_code)


def _judge_silence(spec: StageSpec, start: Start, exit_code: int) -> tuple[Outcome, FailureClass, str, int | None]:
    """The work said nothing (killed): go on only if this start saved something, else it would loop."""
    starts = [
        line for line in files.read_json_lines(spec.stage_paths.events)
        if line.get("event") == "start" and line.get("job") == start.job and line.get("restart") == start.restart
    ]  # fmt: skip
    began = starts[-1].get("step", 0) if starts else 0
    now = newest_save(spec) or 0
    text = f"the work ended with exit code {exit_code} and no result"
    if spec.continuation != "none" and now > began:
        return Outcome.CONTINUE, FailureClass.KILLED, f"{text}; saved up to step {now}", now
    return Outcome.FAIL, FailureClass.KILLED, f"{text}; nothing new was saved (newest save: step {now})", now


def publish(spec: StageSpec, start: Start, result: dict[str, Any]) -> None:
    """Rename what this start wrote to ``output`` and seal it. An output that is sealed already stays.

    Raises:
        ClaimLost: a later start holds the entry.
        SealBroken: there is nothing to seal.
    """
    store, stage = spec.store_paths, spec.stage_paths
    held, partial = claim_of(spec, start), output_of(spec, start)
    if store.seal.exists():
        event(stage, start, "already_sealed", store=store.root.name)
        return
    claims.check_held(store, held)
    if partial.exists() and any(partial.iterdir()):
        shutil.rmtree(store.output, ignore_errors=True)  # an unsealed left-over of a start killed between these lines
        os.replace(partial, store.output)
        files.fsync_directory(store.root)
    claims.check_held(store, held)
    began = time.monotonic()
    sealed = seal.seal_directory(
        store.output, store.seal, kind=seal.SealKind(spec.produces["kind"]), format=spec.produces["format"],
        fingerprint=spec.fingerprint, step=result.get("step"), behaviour=result.get("behaviour"),
        parents={role: seal.digest_of(parent.paths.seal) for role, parent in spec.inputs.items()},
        metrics=result.get("metrics", {}), run=spec.run, stage=spec.stage, job=start.job, restart=start.restart,
    )  # fmt: skip
    seconds = round(time.monotonic() - began, 3)
    event(stage, start, "sealed", store=store.root.name, bytes=sealed.bytes, files=len(sealed.files), seconds=seconds)
    shutil.rmtree(store.saves, ignore_errors=True)  # the finished output replaces them


def tail(path: Path, lines: int = 20) -> list[str]:
    """Last lines of a log file."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 32768))
            return stream.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
