"""The letter about a sweep: one when all of its chains have ended or none goes on by itself, and none for each."""

from __future__ import annotations

import os
from enum import Enum

from launch.base.text import count
from launch.notify import letter
from launch.notify.letter import LONGEST_BODY, About, Letter
from launch.plan.sweep import said
from launch.report import family as report
from launch.runs.family import Family, is_busy, is_cancelled
from launch.runs.journal import announced
from launch.status.family import FamilyStatus, MemberStatus
from launch.status.model import RunStatus, State

_ALIVE = (State.RUNNING, State.WAITING, State.SUBMITTING, State.DEFERRED, State.UNKNOWN)


class _Turn(Enum):
    """Of a chain that has no jobs of its own."""

    NEXT = "submitted by itself"
    NEVER = "by the user only"


def of_family(family: Family, status: FamilyStatus) -> Letter | None:
    """None: a chain still works, or will. Asked at the end of a job, when that job has submitted the next chains."""
    if status.unreachable or is_busy(family):
        return None
    now = {one.run.id: letter.as_said(one.run, one.plan, one.status) for one in status.members}
    turns = {one.run.id: turn for one in status.members if (turn := _turn(family, status, one)) is not None}
    if _Turn.NEXT in turns.values():
        return None
    abouts = [letter.about_of(one.plan, now[one.run.id]) for one in status.members if one.run.id not in turns]
    told = [one for one in abouts if one is not None]
    if len(told) < len(abouts):
        return None
    about = _about(told, bool(turns) and not is_cancelled(family))
    ended = [[one.run.id, letter.ends(one.run, one.plan, now[one.run.id])] for one in status.members]
    body = "\n".join([*report.lines(status), "", f"page: {family.paths.page}"])
    return Letter(about, letter.key(about, ended), _subject(about, status, now), body[:LONGEST_BODY])


def _turn(family: Family, status: FamilyStatus, one: MemberStatus) -> _Turn | None:
    """Whether a chain waits for its turn; None: it has had it, or a stage that it shares keeps it from it."""
    left = [stage for stage in one.status.stages if stage.state is State.NOT_SUBMITTED]
    others = [stage for stage in one.status.stages if stage.state.is_over and stage.state is not State.NOT_SUBMITTED]
    if not left or others or announced(one.run.journal):
        return None
    here = os.environ.get("SLURM_JOB_ID", "")
    alive = any(
        stage.state in _ALIVE and not (here and stage.job == here)
        for member in status.members
        for stage in member.status.stages
    )
    return _Turn.NEXT if alive and family.record.at_once is not None and not is_cancelled(family) else _Turn.NEVER


def _about(told: list[About], is_stuck: bool) -> About:
    if is_stuck:
        return About.STUCK
    kinds = {*told} - {About.DONE}
    return kinds.pop() if len(kinds) == 1 else About.FAILED if kinds or not told else About.DONE


def _subject(about: About, status: FamilyStatus, now: dict[str, RunStatus]) -> str:
    """The verdict in one line: how many chains, and the best of them."""
    record = status.family.record
    done, every = sum(one.is_done for one in now.values()), len(now)
    chains = count(every, "chain") if done == every else f"{done} of {count(every, 'chain')} done"
    parts = [f"{record.pipeline} {status.family.id}: {about.upper()}", chains]
    if (best := status.best) is not None and best.value is not None and record.ranking is not None:
        values = " ".join(f"{key.rpartition('.')[2]} {said(best.member.values[key])}" for key in record.keys)
        parts.append(f"best {best.run.id} ({values}): {record.ranking.metric} {best.value.value:.3g}")
    return ", ".join(parts)[:200]
