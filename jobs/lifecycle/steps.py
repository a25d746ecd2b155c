"""What surrounds the work, on the batch host: claim and file gate before it, seal and verdict after it.

Standard library only and no heavy import: a spare link or a broken checkpoint ends the job within a second or two.
"""

from __future__ import annotations

import os
import shutil
import time
from enum import Enum, IntEnum
from typing import Any

from jobs.core import attempts, claim, files, progress, seal, verdict
from jobs.core.claim import ClaimLost
from jobs.core.spec import Input, StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict
from jobs.lifecycle import judge, nodes, space
from jobs.lifecycle.start import EndedBy, Start, claim_of, event, newest_save, output_of

__all__ = ["EndedBy", "Start", "claim_of", "event", "finish", "newest_save", "output_of", "prologue"]

GATE_WAIT_SECONDS = 60.0
"""How long a parent's seal may stay invisible (NFS caches a directory for up to 60 s, acdirmax)."""

BEHIND_WAIT_SECONDS = 5.0
"""How long the seal of a copy that was killed may stay invisible before it is taken to have left none."""

MOVES = 3
"""How often one job may ask for other nodes: where Slurm gives it the same ones again, it works there."""


class Entry(IntEnum):
    """Exit codes of the prologue, read by host.sh."""

    WORK = 0
    SEALED = 20
    BEHIND = 21
    FAIL = 22
    MOVE = 23
    WAIT = 24


class FinishDecision(str, Enum):
    """What host.sh does at the end; printed by ``finish``."""

    DONE = "done"
    REQUEUE = "requeue"
    NEXT_LINK = "next-link"
    FAIL = "fail"


def _conclude(spec: StageSpec, start: Start, said: Verdict) -> None:
    verdict.write(spec.stage_paths, said)
    event(
        spec.stage_paths,
        start,
        "verdict",
        outcome=said.outcome.value,
        failure=said.failure.value,
        evidence=said.evidence,
        step=said.step,
    )


def _fail(spec: StageSpec, start: Start, failure: FailureClass, evidence: str, step: int | None) -> Entry:
    said = Verdict(Outcome.FAIL, failure, evidence, step, start.job, start.restart, start.host)
    _conclude(spec, start, said)
    return Entry.FAIL


def prologue(spec: StageSpec, start: Start, over: str = "") -> Entry:
    """Claim the store entry and check the inputs; the return value says whether work may start.

    ``over``: a copy of this job that did the work and has ended; this one does not stand behind it again.
    """
    stage, store = spec.stage_paths, spec.store_paths
    if over:  # killed jobs say nothing; the seal of one that says that it is done has to appear
        files.wait_for(store.seal, GATE_WAIT_SECONDS if _said(spec, over) is Outcome.DONE else BEHIND_WAIT_SECONDS)
    if store.seal.exists():
        event(stage, start, "already_sealed", store=store.root.name)
        done = Verdict(Outcome.DONE, FailureClass.NONE, "already sealed", spec.target_step, start.job, start.restart)
        _conclude(spec, start, done)
        return Entry.SEALED
    entry = _take_claim(spec, start, over)
    if entry is not Entry.WORK:
        return entry
    problem = judge.before(spec, start)
    if problem is not None:
        return _fail(spec, start, *problem, newest_save(spec))
    if _should_move(spec, start):
        return Entry.MOVE
    try:
        gate(spec, start)
    except seal.SealBroken as error:
        failure = FailureClass.BROKEN_INPUT if error.path.exists() else FailureClass.MISSING_INPUT
        return _fail(spec, start, failure, str(error), None)
    if (lack := space.lack(spec)) is not None:
        return _fail(spec, start, FailureClass.STORAGE_FULL, lack, newest_save(spec))
    # The gate may have taken minutes; what follows removes what an older start has left, not what a newer one makes.
    if (replaced := _replaced(spec, start)) is not None:
        return _fail(spec, start, FailureClass.CLAIM_LOST, replaced, newest_save(spec))
    for stale in (stage.deadline, stage.stop, stage.result):
        stale.unlink(missing_ok=True)
    for stale in store.partials():
        shutil.rmtree(stale, ignore_errors=True)
    output_of(spec, start).mkdir(parents=True)
    event(
        stage,
        start,
        "start",
        host=start.host,
        nodes=list(start.nodes),
        attempt=spec.attempt,
        step=newest_save(spec) or 0,
    )
    return Entry.WORK


def _replaced(spec: StageSpec, start: Start) -> str | None:
    """By whom, in words, if this start does not hold the entry any more."""
    try:
        claim.check_held(spec.store_paths, claim_of(spec, start))
    except ClaimLost as error:
        return str(error)
    return None


def _should_move(spec: StageSpec, start: Start) -> bool:
    """Whether this start stands on a node that has failed the stage twice and may ask for another."""
    bad = judge.bad_nodes(spec)
    if spec.continuation != "requeue" or not set(bad) & set(start.nodes) or os.environ.get("OVERNIGHT_STAY"):
        return False
    lines = files.read_json_lines(spec.stage_paths.events)
    moved = sum(line.get("event") == "moves" and line.get("job") == start.job for line in lines)
    if moved >= MOVES or not _avoid(spec, start):
        return False
    event(spec.stage_paths, start, "moves", nodes=sorted(set(bad) & set(start.nodes)))
    return True


def _avoid(spec: StageSpec, start: Start) -> bool:
    """Leave the nodes to exclude for host.sh, which can tell Slurm only once the job is pending; whether there are
    any."""
    found = nodes.to_avoid(start.job, judge.strikes(spec), max(1, len(start.nodes)))
    path = spec.stage_paths.avoid(start.job)
    if not found:
        path.unlink(missing_ok=True)
        return False
    files.write_atomic(path, ",".join(found) + "\n")
    event(spec.stage_paths, start, "avoids", nodes=found)
    return True


def _take_claim(spec: StageSpec, start: Start, over: str) -> Entry:
    stage, store = spec.stage_paths, spec.store_paths
    current = attempts.current(store)
    if current is not None and current.token != spec.attempt:
        event(stage, start, "superseded", attempt=spec.attempt, by=current.token)
        return Entry.FAIL
    if _must_wait(spec, start):
        return Entry.WAIT
    rival = claim.take(store, claim_of(spec, start))
    if rival is None:
        # Again: it may have begun meanwhile, and did not see our claim if it took its own before.
        return Entry.WAIT if _must_wait(spec, start) else Entry.WORK
    if rival.job == claim.SUPERSEDED:
        event(stage, start, "superseded", attempt=spec.attempt, by=rival.host)
        return Entry.FAIL
    if rival.job == over or _said(spec, rival.job) is Outcome.FAIL:
        evidence = f"job {rival.job}, the copy of this job that did its work, ended without a seal"
        return _fail(spec, start, FailureClass.KILLED, evidence, newest_save(spec))
    event(stage, start, "claimed_by_another", rival=rival.job, host=rival.host)
    files.write_atomic(stage.behind(start.job), rival.job + "\n")
    return Entry.BEHIND


def _must_wait(spec: StageSpec, start: Start) -> bool:
    """Whether a job of an earlier link is at work. A link is released when the job before it ends, and that may have
    been a copy (Slurm accepted two) which somebody cancelled while the other one works."""
    earlier = [one for one in claim.of_attempt(spec.store_paths, spec.attempt, fresh=True) if one.link < start.link]
    for job in sorted({one.job for one in earlier} - {start.job, claim.SUPERSEDED}):
        if _said(spec, job) is None and nodes.is_at_work(job):
            told = files.read_json_lines(spec.stage_paths.events)
            if not any(line.get("event") == "waits_for" and line.get("job") == start.job for line in told):
                event(spec.stage_paths, start, "waits_for", earlier_link=job)
            return True
    return False


def _said(spec: StageSpec, job: str) -> Outcome | None:
    """What the newest start of a job concluded; None if it has not."""
    starts = [one for one in claim.of_attempt(spec.store_paths, spec.attempt) if one.job == job]
    newest = max(starts, key=lambda one: one.order, default=None)
    found = verdict.read(spec.stage_paths.verdict(job, newest.restart)) if newest else None
    return found.outcome if found else None


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
    """Turn what the work left behind into a seal and a verdict; returns the ``FinishDecision`` for host.sh."""
    stage = spec.stage_paths
    known = verdict.read(stage.verdict(start.job, start.restart))
    if known is not None:
        return _decision(spec, start, known)
    result = files.read_json_or_none(stage.result) or {}
    if result.get("job") != start.job or result.get("restart") != start.restart:
        result = {}
    try:
        said = _judge(spec, start, result, exit_code, ended_by)
    except (ClaimLost, seal.SealBroken, OSError) as error:
        failure = verdict.classify(error)
        said = Verdict(Outcome.FAIL, failure, str(error), newest_save(spec), start.job, start.restart, start.host)
    _conclude(spec, start, said)
    decision = _decision(spec, start, said)
    if decision == FinishDecision.REQUEUE.value and judge.bad_nodes(spec):
        _avoid(spec, start)
    return decision


def _decision(spec: StageSpec, start: Start, found: Verdict) -> str:
    if found.outcome is Outcome.DONE:
        return FinishDecision.DONE.value
    if found.outcome in (Outcome.CONTINUE, Outcome.RETRY):
        if spec.continuation == "requeue":
            return FinishDecision.REQUEUE.value
        if spec.continuation == "chain" and start.link + 1 < spec.links:
            return FinishDecision.NEXT_LINK.value
    return FinishDecision.FAIL.value


def _judge(spec: StageSpec, start: Start, result: dict[str, Any], exit_code: int, ended_by: EndedBy) -> Verdict:
    step = result.get("step")
    if result.get("outcome") != "done":
        return judge.after(spec, start, result, exit_code, ended_by)
    target = _target(spec)
    if target is not None and (step is None or step < target):
        text = f"said done at step {step}, target {target}"
        return Verdict(Outcome.FAIL, FailureClass.CODE_ERROR, text, step, start.job, start.restart, start.host)
    publish(spec, start, result)
    return Verdict(Outcome.DONE, FailureClass.NONE, "", step, start.job, start.restart, start.host)


def _target(spec: StageSpec) -> int | None:
    """The step at which the stage is done; of epochs, whose steps the work has counted, what its reports say."""
    if spec.target_step is not None or not spec.trains:
        return spec.target_step
    last = progress.latest(spec.stage_paths.progress)
    return None if last is None else last.total


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
    claim.check_held(store, held)
    if partial.exists() and any(partial.iterdir()):
        shutil.rmtree(store.output, ignore_errors=True)  # an unsealed left-over of a start killed between these lines
        os.replace(partial, store.output)
        files.fsync_directory(store.root)
    claim.check_held(store, held)
    began = time.monotonic()
    sealed = seal.seal_directory(
        store.output,
        store.seal,
        kind=seal.SealKind(spec.produces["kind"]),
        format=spec.produces["format"],
        fingerprint=spec.fingerprint,
        step=result.get("step"),
        behaviour=result.get("behaviour"),
        parents={role: seal.digest_of(parent.paths.seal) for role, parent in spec.inputs.items()},
        metrics=result.get("metrics", {}),
        run=spec.run,
        stage=spec.stage,
        job=start.job,
        restart=start.restart,
        depth=spec.seal_depth,
    )
    seconds = round(time.monotonic() - began, 3)
    label = {} if sealed.depth is seal.Depth.FULL else {"depth": sealed.depth.value, "note": seal.LIGHT_NOTE}
    event(
        stage,
        start,
        "sealed",
        store=store.root.name,
        bytes=sealed.bytes,
        files=len(sealed.files),
        seconds=seconds,
        **label,
    )
    shutil.rmtree(store.saves, ignore_errors=True)  # the finished output replaces them
