"""What surrounds the work, on the batch host: claim and file gate before it, seal and verdict after it.

Standard library only and no heavy import: a spare link or a broken checkpoint ends the job within a second or two.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from dataclasses import replace
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

from jobs.core import attempts, budget, claim, files, patience, seal, verdict
from jobs.core import spec as specs
from jobs.core.claim import ClaimLost
from jobs.core.patience import Patience, passes
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict
from jobs.lifecycle import gate, judge, nodes, publish, space
from jobs.lifecycle.start import EndedBy, Start, claim_of, event, newest_save, notes, output_of, own_saves_of

BEHIND_WAIT_SECONDS = 5.0
"""How long the seal of a copy that was killed may stay invisible before it is taken to have left none."""

WORD_SECONDS = 20.0
"""How long a verdict may take to be written where the file system has just failed."""

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


def _conclude(spec: StageSpec, said: Verdict, start: Start) -> None:
    said = replace(said, attempt=spec.attempt)
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
    _conclude(spec, said, start)
    return Entry.FAIL


def _done(spec: StageSpec, start: Start, evidence: str, step: int | None) -> Entry:
    _conclude(spec, Verdict(Outcome.DONE, FailureClass.NONE, evidence, step, start.job, start.restart), start)
    return Entry.SEALED


def _error(spec: StageSpec, start: Start, error: Exception) -> Verdict:
    """What an error in a prologue or a finish means: none of them ends without a verdict."""
    failure, step = FailureClass.FILE_SYSTEM if passes(error) else verdict.classify(error), None
    with contextlib.suppress(OSError):
        step = newest_save(spec)
    text = str(error) or type(error).__name__
    if failure is FailureClass.FILE_SYSTEM:
        return judge.unreadable(spec, start, f"the file system did not answer: {text}", step)
    if failure is FailureClass.CODE_ERROR and not isinstance(error, OSError):
        text = f"{type(error).__name__}: {text}"
    return Verdict(Outcome.FAIL, failure, text, step, start.job, start.restart, start.host)


def _tell(spec: StageSpec, start: Start, error: Exception, by: str = "") -> Verdict:
    """``_error``, written down; where not even that is possible, at least said in the job's output."""
    if not passes(error):
        traceback.print_exception(error)
    try:
        said = replace(_error(spec, start, error), judged_by=by)
        Patience(WORD_SECONDS).call(lambda: _conclude(spec, said, start))
    except Exception as worse:
        print(f"overnight: {error}; and no verdict can be written: {worse}", file=sys.stderr, flush=True)
        outcome = Outcome.RETRY if may_go_elsewhere(worse, start.restart) else Outcome.FAIL
        return Verdict(outcome, verdict.classify(worse), str(error), None, start.job, start.restart, start.host)
    return said


def begin(path: Path, over: str = "") -> Entry:
    """``prologue`` of this start by its environment, with the spec in ``path``. Where that cannot be read, the job goes
    elsewhere a few times: there is nothing to count them by but Slurm's own count."""
    try:
        spec = Patience().call(lambda: specs.load(path))
    except (OSError, ValueError) as error:
        print(f"overnight: the job cannot read what it is to do: {error}", file=sys.stderr, flush=True)
        return Entry.MOVE if may_go_elsewhere(error, Start.from_environment().restart) else Entry.FAIL
    return prologue(spec, Start.from_environment(spec.attempt), over)


def may_go_elsewhere(error: Exception, restart: int) -> bool:
    """Whether a start that cannot even read or write its own files may ask Slurm for another."""
    return passes(error) and restart < budget.RETRIES[FailureClass.FILE_SYSTEM] and not os.environ.get("OVERNIGHT_STAY")


def prologue(spec: StageSpec, start: Start, over: str = "") -> Entry:
    """Claim the store entry and check the inputs; the return value says whether work may start.

    ``over``: a copy of this job that did the work and has ended; this one does not stand behind it again.
    """
    start = replace(start, attempt=spec.attempt)
    try:
        return Patience(_seconds(spec)).call(lambda: _prologue(spec, start, over))
    except Exception as error:
        said = _tell(spec, start, error, judge.PROLOGUE)
    # Slurm starts a requeued job two minutes later, and perhaps elsewhere. Where it may not be requeued the next link
    # comes, or the final verdict is written.
    may_move = spec.continuation == "requeue" and not os.environ.get("OVERNIGHT_STAY")
    if said.outcome is Outcome.RETRY and may_move:
        with contextlib.suppress(Exception):
            _avoid(spec, start)
        return Entry.MOVE
    return Entry.FAIL


def _seconds(spec: StageSpec) -> float:
    """What a prologue waits for the file system: longer after each start of the attempt that waited in vain."""
    with contextlib.suppress(OSError):
        before = sum(said.failure is FailureClass.FILE_SYSTEM for _, said in judge.history(spec))
        return float(patience.TOTAL_SECONDS * 2 ** min(before, 3))
    return patience.TOTAL_SECONDS


def _prologue(spec: StageSpec, start: Start, over: str) -> Entry:
    stage, store = spec.stage_paths, spec.store_paths
    patience.check_mounted(store.root.parent)
    if over:  # killed jobs say nothing; the seal of one that says that it is done has to appear
        files.wait_for(store.seal, gate.WAIT_SECONDS if _said(spec, over) is Outcome.DONE else BEHIND_WAIT_SECONDS)
    if store.seal.exists():
        event(stage, start, "already_sealed", store=store.root.name)
        return _done(spec, start, "already sealed", spec.target_step)
    entry = _take_claim(spec, start, over)
    if entry is not Entry.WORK:
        return entry
    _forget_namesake(spec, start)
    files.make_directory(own_saves_of(spec, start))
    problem = judge.before(spec, start)
    finished = publish.seal_finished(spec, start)
    if finished is not None:
        return _done(spec, start, "its output was sealed for an earlier start", finished.get("step"))
    if problem is not None:
        return _fail(spec, start, *problem, newest_save(spec))
    if _should_move(spec, start):
        return Entry.MOVE
    try:
        gate.check(spec, start)
    except seal.SealBroken as error:
        if passes(error):
            raise
        failure = FailureClass.BROKEN_INPUT if error.path.exists() else FailureClass.MISSING_INPUT
        return _fail(spec, start, failure, str(error), None)
    if (lack := space.lack(spec)) is not None:
        return _fail(spec, start, FailureClass.STORAGE_FULL, lack, newest_save(spec))
    # The gate may have taken minutes: of what a newer start makes nothing is touched.
    if (replaced := is_replaced(spec, start)) is not None:
        return _fail(spec, start, FailureClass.CLAIM_LOST, replaced, newest_save(spec))
    publish.revoke_earlier(spec, start)
    if store.seal.exists():  # by an earlier start that was faster than this one could take its directory away
        return _done(spec, start, "an earlier start has sealed it", spec.target_step)
    for stale in (stage.stop, stage.result):
        if stale.exists():  # by way of our own directory: a later start may have begun, and what lies there be its
            claim.move(stale, own_saves_of(spec, start) / f"before-{stale.name}")
    files.take_away(output_of(spec, start))
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


def _forget_namesake(spec: StageSpec, start: Start) -> None:
    """Remove what a job of the same id has left that was of another attempt: a verdict would decide for this start, a
    note of a hang or of the end of its time would end it."""
    stage = spec.stage_paths
    if judge.said_of(spec, start.job, start.restart) is None:
        stage.verdict(start.job, start.restart).unlink(missing_ok=True)
    stage.stall(start.job, start.restart).unlink(missing_ok=True)
    stage.deadline(start.job, start.restart).unlink(missing_ok=True)
    files.take_away(stage.ranks(start.job, start.restart))
    if start.restart == 0:
        stage.avoid(start.job).unlink(missing_ok=True)


def is_replaced(spec: StageSpec, start: Start) -> str | None:
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
    if len(notes(spec, start, "moves")) >= MOVES or not _avoid(spec, start):
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
    newer = attempts.newer(store, spec.attempt)  # not by a listing that this node has made a moment before
    if newer is not None:
        event(stage, start, "superseded", attempt=spec.attempt, by=newer.token)
        return Entry.FAIL
    if _must_wait(spec, start):
        return Entry.WAIT
    has_begun = any(one.job == start.job for one in judge.starts(spec))
    rival = claim.take(store, claim_of(spec, start), has_begun)
    if rival is None:
        # Again: it may have begun meanwhile, and did not see our claim if it took its own before.
        return Entry.WAIT if _must_wait(spec, start) else Entry.WORK
    if rival.job == claim.SUPERSEDED:
        event(stage, start, "superseded", attempt=spec.attempt, by=rival.host)
        return Entry.FAIL
    if rival.job == claim.DAMAGED:
        path = store.claim(rival.attempt, rival.link, rival.restart)
        return _fail(spec, start, FailureClass.CLAIM_LOST, f"{path}: damaged: it names no job that may work", None)
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
            if not notes(spec, start, "waits_for"):
                event(spec.stage_paths, start, "waits_for", earlier_link=job)
            return True
    return False


def _said(spec: StageSpec, job: str) -> Outcome | None:
    """What the newest start of a job concluded; None if it has not."""
    starts = [one for one in claim.of_attempt(spec.store_paths, spec.attempt) if one.job == job]
    newest = max(starts, key=lambda one: one.order, default=None)
    found = judge.said_of(spec, job, newest.restart) if newest else None
    return found.outcome if found else None


def finish(spec: StageSpec, start: Start, exit_code: int, ended_by: EndedBy = EndedBy.ITSELF) -> str:
    """Turn what the work left behind into a seal and a verdict; returns the ``FinishDecision`` for host.sh."""
    start = replace(start, attempt=spec.attempt)
    try:
        said = Patience().call(lambda: _finish(spec, start, exit_code, ended_by))
    except Exception as error:
        cause = error
        with contextlib.suppress(Exception):
            if (replaced := is_replaced(spec, start)) is not None:  # whose directories are gone
                cause = ClaimLost(replaced)
        said = _tell(spec, start, cause)
    decision = _decision(spec, start, said)
    if decision == FinishDecision.REQUEUE.value:
        with contextlib.suppress(Exception):  # that a node is left out is no condition of going on
            if judge.bad_nodes(spec):
                _avoid(spec, start)
    return decision


def _finish(spec: StageSpec, start: Start, exit_code: int, ended_by: EndedBy) -> Verdict:
    known = judge.said_of(spec, start.job, start.restart)
    if known is not None:
        return known
    if (replaced := is_replaced(spec, start)) is not None:  # how it ended says nothing of the work any more
        raise ClaimLost(replaced)
    result = publish.result_of(spec)
    if (result.get("job"), result.get("restart")) != (start.job, start.restart):
        result = {}
    said = _judge(spec, start, result, exit_code, ended_by)
    _conclude(spec, said, start)
    return said


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
    if (target := publish.lacks_steps(spec, result)) is not None:
        text = f"reported done at step {step}, target {target}"
        return Verdict(Outcome.FAIL, FailureClass.CODE_ERROR, text, step, start.job, start.restart, start.host)
    publish.publish(spec, start, result)
    return Verdict(Outcome.DONE, FailureClass.NONE, "", step, start.job, start.restart, start.host)
