"""The letter about a run that has ended, or that will not go on by itself: the verdict in its subject."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.core import attempts
from jobs.core.verdict import FailureClass, Outcome
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.report import page
from launch.runs.journal import last_word
from launch.runs.rundir import Run
from launch.status import report as reports
from launch.status.model import RunStatus, StageStatus, State, by_verdict
from launch.status.report import RunReport

LONGEST_BODY = 20_000
_GOES_ON = (State.RUNNING, State.SUBMITTING, State.DEFERRED, State.UNKNOWN)


class About(StrEnum):
    """What a letter is about."""

    DONE = "done"
    FAILED = "failed"
    UNDECIDED = "undecided"
    STUCK = "stuck"


@dataclass(frozen=True)
class Letter:
    """``key``: the same for the same end of a run, another after a ``resume``."""

    about: About
    key: str
    subject: str
    body: str


def of_run(run: Run, plan: Plan, profile: Profile, status: RunStatus) -> Letter | None:
    """None: a stage still works, or will."""
    now = as_said(run, plan, status)
    about = about_of(plan, now)
    if about is None:
        return None
    made = reports.make(run, plan, profile, now)
    body = "\n".join([*reports.lines(made, profile.name), "", f"page: {run.paths.page}"])
    return Letter(about, key(about, ends(run, plan, now)), _subject(about, made, now), body[:LONGEST_BODY])


def key(about: About, ended: object) -> str:
    """The name of a letter: the same for the same end."""
    return f"{about}-{hashlib.sha256(json.dumps([about, ended]).encode()).hexdigest()[:12]}"


def ends(run: Run, plan: Plan, status: RunStatus) -> list[tuple[str, str, str]]:
    """How each stage ended, and in which attempt. Of what waits for one that failed nothing: its job goes from waiting
    to cancelled some time later, and that is no other end."""
    over = {one.stage for one in status.stages if one.state.is_over}
    found = []
    for stage, one in zip(plan.stages, status.stages, strict=True):
        current = attempts.current(stage.store(run.workspace))
        is_behind = bool(plan.below(over) & set(stage.parents))
        state = "" if is_behind and one.state is not State.SEALED else one.state.value
        found.append((one.stage, state, current.token if current else ""))
    return sorted(found)


def as_said(run: Run, plan: Plan, status: RunStatus) -> RunStatus:
    """With the verdicts of stages whose jobs are on their way out of the queue: also the one that asks."""
    found = []
    for stage, one in zip(plan.stages, status.stages, strict=True):
        store = stage.store(run.workspace)
        current = attempts.current(store)
        if one.state is State.RUNNING and store.seal.exists():
            found.append(replace(one, state=State.SEALED, text="sealed"))
        elif one.state is State.RUNNING and current is not None:
            said = last_word(store, current)
            ended = said is not None and said.outcome is Outcome.FAIL
            found.append(by_verdict(one, said) if said is not None and ended else one)
        else:
            found.append(one)
    return replace(status, stages=tuple(found))


def about_of(plan: Plan, status: RunStatus) -> About | None:
    """What there is to tell; None: a stage still works, or will."""
    if status.is_done:
        return About.DONE
    states = {one.stage: one for one in status.stages}
    over = {one.stage for one in status.stages if one.state.is_over}
    below = plan.below(over) if over else set()
    going = [
        one for one in status.stages if one.state in _GOES_ON or (one.state is State.WAITING and one.stage not in below)
    ]
    if going:
        return None
    failed = [states[name] for name in over if states[name].failure or states[name].state is State.FAILED]
    if any(one.state is State.BLOCKED for one in status.stages) and not failed:
        return About.STUCK
    if failed and all(one.failure == FailureClass.GATE_UNDECIDED.value for one in failed):
        return About.UNDECIDED
    return About.FAILED


def _subject(about: About, made: RunReport, status: RunStatus) -> str:
    """The verdict in one line, as far as it fits into what a phone shows."""
    begin = f"{made.plan.pipeline} {made.run.id}: {about.upper()}"
    if about is About.DONE:
        gated = [one for one in made.measured if one.gate]
        facts = [f"{sum(one.verdict == 'passed' for one in gated)}/{len(gated)} gates"] if gated else []
        better, worse, _ = page.moved(made.measured)
        for word, found in (("better", better), ("worse", worse)):
            facts += [f"{one.metric} {_moved(one.before, one.now.value)} {word}" for one in found[:2]]
        return ", ".join([begin, *facts])
    first = next((one for one in status.stages if _tells(one)), None)
    return begin if first is None else f"{begin}, {first.stage}: {first.text}"[:200]


def _moved(before: float | None, now: float) -> str:
    return f"{now:.3g}" if before is None else f"{before:.3g} -> {now:.3g}"


def _tells(one: StageStatus) -> bool:
    return one.state.is_over and one.state is not State.SKIPPED
