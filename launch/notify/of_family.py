"""The letter about a sweep: one when all of its chains have ended or none goes on by itself, and none for each."""

from __future__ import annotations

import os

from launch.base.text import count
from launch.notify import letter
from launch.notify.letter import LONGEST_BODY, About, Letter
from launch.plan.sweep import said
from launch.report import family as report
from launch.runs import family as families
from launch.runs.family import Family
from launch.runs.journal import announced
from launch.status.family import FamilyStatus, MemberStatus
from launch.status.model import RunStatus, State


def of_family(family: Family, status: FamilyStatus) -> Letter | None:
    """None: a chain still works, or will. Asked at the end of a job, when that job has submitted the next chains."""
    if status.unreachable or families.is_busy(family):
        return None
    now = {one.run.id: letter.as_said(one.run, one.plan, one.status) for one in status.members}
    waiting = {one.run.id for one in status.members if _waits_for_its_turn(one)}
    is_cancelled = families.is_cancelled(family.journal.read())
    if waiting and family.record.at_once is not None and not is_cancelled and _is_alive(status):
        return None  # a job submits the next one at its end
    abouts = [letter.about_of(one.plan, now[one.run.id]) for one in status.members if one.run.id not in waiting]
    told = [one for one in abouts if one is not None]
    if len(told) < len(abouts):
        return None
    about = _about(told, bool(waiting) and not is_cancelled)
    ended = [[one.run.id, letter.ends(one.run, one.plan, now[one.run.id])] for one in status.members]
    body = "\n".join([*report.lines(status), "", f"page: {family.paths.page}"])
    return Letter(about, letter.key(about, ended), _subject(about, status, now), body[:LONGEST_BODY])


def _waits_for_its_turn(one: MemberStatus) -> bool:
    """Whether a chain has no jobs of its own, and no stage that it shares keeps it from them."""
    left = [stage for stage in one.status.stages if stage.state is State.NOT_SUBMITTED]
    others = [stage for stage in one.status.stages if stage.state.is_over and stage.state is not State.NOT_SUBMITTED]
    return bool(left) and not others and not announced(one.run.journal)


def _is_alive(status: FamilyStatus) -> bool:
    """Whether a job of the family, but this one, is at work or waits."""
    here = os.environ.get("SLURM_JOB_ID", "")
    every = (stage for member in status.members for stage in member.status.stages)
    return any(stage.state.is_live and not (here and stage.job == here) for stage in every)


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
