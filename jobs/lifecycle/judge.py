"""How a start ended, and whether another may follow: verdicts with their class, the line that shows it, budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobs.core import budget, claim, files, strict, symptoms, verdict
from jobs.core.budget import Ended
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict
from jobs.lifecycle import nodes
from jobs.lifecycle.start import EndedBy, Start, event, newest_save, notes

NODE_CLASSES = frozenset({
    FailureClass.NODE_FAILURE, FailureClass.HANG, FailureClass.MISSING_GPUS, FailureClass.KILLED,
    FailureClass.ENVIRONMENT, FailureClass.FILE_SYSTEM,
})  # fmt: skip
"""Failures that may be a node's fault. Twice on one node, and the stage excludes it."""


RANKS = ".ranks"
"""Behind the name of a node: the file in which its processes register before their work."""

PROLOGUE = "prologue"
"""In ``judged_by``: the start ended before its work began."""


@dataclass(frozen=True)
class Began:
    """A start that did begin its work, as it noted it itself. ``step``: newest save then."""

    job: str
    restart: int
    time: float
    step: int
    nodes: tuple[str, ...]


def starts(spec: StageSpec) -> list[Began]:
    """Starts of this attempt, oldest first; each once, also where its note was written twice."""
    found: dict[tuple[str, int], Began] = {}
    for line in notes(spec, None, "start"):
        if line.get("attempt") == spec.attempt and (began := _began(line)) is not None:
            found.setdefault((began.job, began.restart), began)
    return list(found.values())


def _began(line: dict[str, Any]) -> Began | None:
    """None for a note that is damaged."""
    known = {"job": "", "restart": 0, "time": 0.0, "step": 0, "nodes": []}
    try:
        return strict.build(Began, {name: line.get(name, default) for name, default in known.items()})
    except ValueError:
        return None


def said_of(spec: StageSpec, job: str, restart: int) -> Verdict | None:
    """The verdict of a start of this attempt; None if it has none."""
    return verdict.of_attempt(spec.stage_paths.verdict(job, restart), spec.attempt)


def history(spec: StageSpec) -> list[tuple[Began, Verdict]]:
    """Starts of this attempt that have a verdict, oldest first, also those that found no file system and so could not
    begin. Those that finished are not failures. In the order of the notes: the clocks of nodes differ."""
    begun = {(one.job, one.restart): one for one in starts(spec)}
    order = {key: number for number, key in enumerate(begun)}
    pairs = []
    for said in verdict.all_of(spec.stage_paths):
        one = begun.get((said.job, said.restart))
        if one is None and said.failure is FailureClass.FILE_SYSTEM and said.attempt == spec.attempt:
            one = Began(said.job, said.restart, said.time, said.step or 0, said.nodes)
        if one is not None and said.attempt in ("", spec.attempt) and said.outcome is not Outcome.DONE:
            pairs.append((one, said))

    def place(pair: tuple[Began, Verdict]) -> tuple[float, int]:
        one = pair[0]  # that of one that did not begin is behind the last start of its job before it
        before = [order[job, restart] for job, restart in order if job == one.job and restart <= one.restart]
        return (max(before, default=-1), one.restart)

    return sorted(pairs, key=place)


def charges(pairs: list[tuple[Began, Verdict]]) -> list[Ended]:
    """What the budgets count."""
    return [Ended(said.failure, (said.step or 0) > began.step) for began, said in pairs]


def strikes(spec: StageSpec) -> list[str]:
    """Names of nodes that failed this stage, once for each time; all attempts of the run count. A file system that
    fails on several nodes is no fault of theirs."""
    told = [said for said in verdict.all_of(spec.stage_paths) if said.failure in NODE_CLASSES]
    without_files = {name for said in told if said.failure is FailureClass.FILE_SYSTEM for name in said.nodes}
    return [
        name
        for said in told
        if said.failure is not FailureClass.FILE_SYSTEM or len(without_files) == 1
        for name in said.nodes
    ]


def bad_nodes(spec: StageSpec) -> list[str]:
    """Nodes that failed this stage as often as is enough to exclude them."""
    found = strikes(spec)
    return sorted({name for name in found if found.count(name) >= nodes.STRIKES})


# Before the work


def before(spec: StageSpec, start: Start) -> tuple[FailureClass, str] | None:
    """Why this start must not work, or None: a failed link ends the chain, a budget that is spent ends the retries.

    The start before this one may have been cut off without a verdict (power cut, SIGKILL): it is judged here.
    """
    told = [(one, said_of(spec, one.job, one.restart)) for one in _earlier(spec, start)]
    began = [(one, said) for one, said in told if said is None or not _is_void(said)]
    if not began:
        return None
    last, said = began[-1]
    if said is None:
        said = _judge_silent(spec, start, last)
    if said.outcome is Outcome.DONE:
        return None  # it had finished; its seal was set aside since
    if said.outcome is Outcome.FAIL:
        return said.failure, f"job {said.job} failed before this link: {said.evidence}"
    past = charges(history(spec))
    if budget.may_go_on(past, spec.retries):
        return None
    failure = said.failure
    text = f"{said.evidence} ({budget.state(past, spec.retries)})"
    if failure in budget.FREE_WITH_PROGRESS:
        return FailureClass.NO_PROGRESS, f"no newer save than step {newest_save(spec) or 0}: {text}"
    return failure, text


def _earlier(spec: StageSpec, start: Start) -> list[Began]:
    """Starts before this one. Not itself, whose note may be there although an error that passed followed; nor later
    ones, which a start finds that is only taken for dead."""
    # Notes first: a start claims before it writes its note, so a claim that is not there now belongs to none of these,
    # however long this process stands between the two looks.
    begun = starts(spec)
    claims = claim.of_attempt(spec.store_paths, spec.attempt)
    others = {(one.job, one.restart) for one in claims if one.order >= (start.link, start.restart)}
    own = [one for one in begun if one.job != start.job or one.restart < start.restart]
    return [one for one in own if (one.job, one.restart) not in others]


def _is_void(said: Verdict) -> bool:
    """Whether a start has ended before its work, or after a later one had taken over."""
    return said.judged_by == PROLOGUE or said.failure is FailureClass.CLAIM_LOST


def _judge_silent(spec: StageSpec, start: Start, last: Began) -> Verdict:
    found = nodes.ending(last.job, _runs_since(spec, start, last), _began_on(spec, last))
    step = newest_save(spec)
    said = Verdict(
        Outcome.RETRY,
        found.failure,
        found.evidence,
        step,
        last.job,
        last.restart,
        ",".join(last.nodes),
        source=symptoms.place_of(spec.stage_paths.log(last.job, last.restart), ""),
        nodes=found.nodes,
        judged_by=f"{start.job}_{start.restart}",
        attempt=spec.attempt,
    )
    verdict.write(spec.stage_paths, said)
    event(
        spec.stage_paths,
        start,
        "no_verdict",
        of_job=last.job,
        of_restart=last.restart,
        newest_save=step or 0,
        failure=found.failure.value,
        evidence=found.evidence,
        nodes=list(found.nodes),
    )
    return said


def _runs_since(spec: StageSpec, start: Start, last: Began) -> int:
    """Which of the runs of its job that have ended a start was, counted from the last one."""
    if last.job == start.job:
        return start.restart - last.restart
    claims = claim.of_attempt(spec.store_paths, spec.attempt)
    return 1 + max((one.restart for one in claims if one.job == last.job), default=0) - last.restart


def _began_on(spec: StageSpec, last: Began) -> dict[str, float | None]:
    """When the work of a start began on each of its nodes, by the clock of that node: the first is the batch host,
    whose clock the note has; on the others the processes have said it."""
    marks = spec.stage_paths.ranks(last.job, last.restart)
    found: dict[str, float | None] = {}
    for node in last.nodes:
        first = next(files.read_json_lines(marks / f"{node}{RANKS}"), {}) if found else {"time": last.time}
        found[node] = at if isinstance(at := first.get("time"), int | float) else None
    return found


# After the work


def after(spec: StageSpec, start: Start, result: dict[str, Any], exit_code: int, ended_by: EndedBy) -> Verdict:
    """The verdict of a start whose work did not say that it is done."""
    said = _cause(spec, start, result, exit_code, ended_by)
    return _within_budget(spec, start, said)


def _cause(spec: StageSpec, start: Start, result: dict[str, Any], exit_code: int, ended_by: EndedBy) -> Verdict:
    said, step = result.get("outcome"), result.get("step")
    log = spec.stage_paths.log(start.job, start.restart)
    base = Verdict(Outcome.RETRY, job=start.job, restart=start.restart, host=start.host, step=newest_save(spec))
    if ended_by is EndedBy.CANCELLED:
        text = "cancelled in Slurm"
        text += f"; saved up to step {base.step}, resume continues from there" if base.step else ""
        return replace(base, outcome=Outcome.FAIL, failure=FailureClass.CANCELLED, evidence=text)
    if ended_by is EndedBy.REQUEUED:
        # Slurm starts it again whatever we say; the next prologue counts how often that brought nothing.
        text = "requeued by Slurm"
        return replace(base, outcome=Outcome.CONTINUE, failure=FailureClass.PREEMPTED, evidence=text)
    if said == "stopped":
        return _stopped(spec, start, replace(base, step=step), str(result.get("reason", "")))
    if said == "failed":
        failure, text = failure_of(result), str(result.get("evidence", ""))
        found = symptoms.search_log(log) if failure in symptoms.CONSEQUENCES else None
        if found is not None and found.failure not in symptoms.CONSEQUENCES:
            base = replace(base, failure=found.failure, source=f"{log}:{found.number}")
            base = replace(base, evidence=symptoms.with_advice(found.failure, found.line))
            result = {"node": symptoms.node_in(found.line)}  # not that of a process which only lost its peer
        else:
            source = str(result.get("source") or symptoms.place_of(log, text.partition(" (")[0]))
            base = replace(base, failure=failure, evidence=text, source=source)
        return replace(base, nodes=_at_fault(start, base.failure, result))
    if ended_by is EndedBy.LIMIT:
        text = "the time limit came before the next step boundary"
        return replace(base, outcome=Outcome.CONTINUE, failure=FailureClass.TIME_LIMIT, evidence=text)
    return _silent(spec, start, base, exit_code)


def failure_of(result: dict[str, Any]) -> FailureClass:
    """``CODE_ERROR`` for a class that this version does not know."""
    known = [one for one in FailureClass if one.value == result.get("failure")]
    return known[0] if known else FailureClass.CODE_ERROR


def _stopped(spec: StageSpec, start: Start, base: Verdict, reason: str) -> Verdict:
    if spec.continuation == "none":
        text = f"stopped at step {base.step}, saved; resume continues from there"
        return replace(base, outcome=Outcome.FAIL, failure=FailureClass.CANCELLED, evidence=text)
    if spec.continuation == "chain" and start.link + 1 >= spec.links:
        of = f" of {spec.target_step}" if spec.target_step else ""
        text = f"the last of {spec.links} links ended at step {base.step}{of}; resume adds links"
        return replace(base, outcome=Outcome.FAIL, failure=FailureClass.TIME_LIMIT, evidence=text)
    return replace(base, outcome=Outcome.CONTINUE, failure=FailureClass.TIME_LIMIT, evidence=reason)


def _silent(spec: StageSpec, start: Start, base: Verdict, exit_code: int) -> Verdict:
    """The work said nothing: its log may show why; killed without a trace it goes on only if something was saved."""
    log = spec.stage_paths.log(start.job, start.restart)
    found = symptoms.search_log(log)
    if found is not None:
        text = symptoms.with_advice(found.failure, found.line)
        node = _at_fault(start, found.failure, {"node": symptoms.node_in(found.line)})
        return replace(base, failure=found.failure, evidence=text, source=f"{log}:{found.number}", nodes=node)
    text = f"the work ended with exit code {exit_code} and no result"
    if exit_code == 137:
        text += " (SIGKILL: by the kernel's OOM killer or by another process)"
    node = _at_fault(start, FailureClass.KILLED, {})
    said = replace(base, failure=FailureClass.KILLED, source=symptoms.place_of(log, ""), nodes=node)
    if (base.step or 0) > _began_at(spec, start):
        return replace(said, outcome=Outcome.CONTINUE, evidence=f"{text}; saved up to step {base.step}")
    text += f"; nothing new was saved (newest save: step {base.step or 0})"
    return replace(said, outcome=Outcome.FAIL, evidence=text)


def unreadable(spec: StageSpec, start: Start, evidence: str, step: int | None) -> Verdict:
    """The verdict of a start that waited for the file system in vain: tried again, while the budget lasts."""
    base = Verdict(Outcome.RETRY, FailureClass.FILE_SYSTEM, evidence, step, start.job, start.restart, start.host)
    return _within_budget(spec, start, replace(base, nodes=start.nodes[:1], attempt=spec.attempt))


def _at_fault(start: Start, failure: FailureClass, result: dict[str, Any]) -> tuple[str, ...]:
    """The nodes to blame: the one that a process named, else that of a job which had only one."""
    if failure not in NODE_CLASSES:
        return ()
    named = result.get("nodes") or ([result["node"]] if result.get("node") else [])
    return tuple(named) or (start.nodes if len(start.nodes) == 1 else ())


def _began_at(spec: StageSpec, start: Start) -> int:
    mine = [began for began in starts(spec) if (began.job, began.restart) == (start.job, start.restart)]
    return mine[-1].step if mine else 0


def _within_budget(spec: StageSpec, start: Start, said: Verdict) -> Verdict:
    """``said``, or a failure where it asks for a start that its budget does not give."""
    if said.outcome is Outcome.FAIL:
        return said
    if spec.continuation == "none":
        return replace(said, outcome=Outcome.FAIL)
    progressed = (said.step or 0) > _began_at(spec, start)
    past = [*charges(history(spec)), Ended(said.failure, progressed)]
    if budget.may_go_on(past, spec.retries):
        return said
    if budget.allowed(said.failure, spec.retries) == 0 and said.failure not in budget.FREE_WITH_PROGRESS:
        return replace(said, outcome=Outcome.FAIL)
    text = f"{said.evidence} ({budget.state(past, spec.retries)})"
    if said.failure is FailureClass.TIME_LIMIT:
        text = f"no newer save than step {said.step or 0}: {text}"
        return replace(said, outcome=Outcome.FAIL, failure=FailureClass.NO_PROGRESS, evidence=text)
    if said.failure is FailureClass.PREEMPTED:
        return said  # not ours to stop: Slurm has requeued it already
    return replace(said, outcome=Outcome.FAIL, evidence=text)
