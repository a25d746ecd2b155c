"""How the chains of a sweep stand, which is best by its metric, and what each key that was swept did to that metric."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist, fmean
from typing import Any

from jobs.core import results, winner
from jobs.core.power import CHANCE
from launch.base.errors import InputError
from launch.config.ranking import Ranking
from launch.plan.model import Plan
from launch.runs.family import Family, Member
from launch.runs.rundir import Run
from launch.status import assess, cluster
from launch.status.cluster import Queue, Sacct
from launch.status.model import RunStatus, State
from launch.status.results import Number, number_of


@dataclass(frozen=True)
class MemberStatus:
    """One chain. ``state``: a word or two; ``value``: what ranks it, where that evaluation is sealed and the chain has
    not failed; ``rank`` from 1."""

    member: Member
    run: Run
    plan: Plan
    status: RunStatus
    state: str
    value: Number | None = None
    test: Number | None = None
    rank: int | None = None

    @property
    def sealed(self) -> int:
        return len(self.status.of(State.SEALED))


@dataclass(frozen=True)
class Effect:
    """What a value of a key did to the metric against the first value of it, in ``pairs`` of chains that differ in
    nothing else: the mean of the differences, the least and the greatest, and how many are for the better."""

    key: str
    value: Any
    against: Any
    pairs: int
    mean: float
    least: float
    greatest: float
    better: int


@dataclass(frozen=True)
class FamilyStatus:
    """All chains in the order of their submission, and what was learned of the keys."""

    family: Family
    members: tuple[MemberStatus, ...]
    effects: tuple[Effect, ...] = ()
    alone: tuple[str, ...] = ()
    """Keys of which no two chains with a number differ in that key alone."""

    @property
    def ranking(self) -> Ranking | None:
        return self.family.record.ranking

    @property
    def ranked(self) -> list[MemberStatus]:
        """Those with a number, the best first."""
        return sorted((one for one in self.members if one.rank is not None), key=lambda one: one.rank or 0)

    @property
    def best(self) -> MemberStatus | None:
        return next(iter(self.ranked), None)

    @property
    def unreachable(self) -> str:
        """Why the cluster gave no response about a chain that is not done; or empty."""
        silent = (one.status.unreachable for one in self.members if not one.status.is_done)
        return next(filter(None, silent), "")

    @property
    def exit_code(self) -> int:
        """As of ``status`` of a run."""
        return 1 if any(one.state.startswith("failed") for one in self.members) else 4 if self.unreachable else 0


def look(family: Family) -> FamilyStatus:
    """The family as it stands: one squeue for all chains. Raises InputError: a run of it cannot be read."""
    runs = {member.run: Run(family.workspace, member.run) for member in family.record.members}
    profile = next(iter(runs.values())).profile()
    queue, sacct = cluster.ask(profile)
    found = [_look(member, runs[member.run], queue, sacct, family) for member in family.record.members]
    return of_members(family, found)


def _look(member: Member, run: Run, queue: Queue, sacct: Sacct, family: Family) -> MemberStatus:
    plan = run.plan()
    status = assess.look(run, plan, queue, sacct)
    ranking = family.record.ranking
    bad = any(stage.state.is_bad for stage in status.stages)
    value = test = None
    if ranking is not None and not bad:
        value = _number(run, plan, (ranking.stage, ranking.task), ranking.metric)
        test = _number(run, plan, ranking.test, ranking.metric)
    return MemberStatus(member, run, plan, status, _state(status), value, test)


def _state(status: RunStatus) -> str:
    """The most urgent thing of a chain in a word, with the stages that it is about."""
    if status.is_done:
        return "done"
    bad = [stage.stage for stage in status.stages if stage.state.is_bad]
    if bad:
        return f"failed: {', '.join(bad)}"
    for state in (State.CANCELLED, State.STOPPED, State.RUNNING):
        if names := [stage.stage for stage in status.of(state)]:
            return f"{state.value}: {', '.join(names)}"
    if any(stage.job and stage.state is not State.SEALED for stage in status.stages):
        return "waits in the queue"
    return "not submitted yet"


def _number(run: Run, plan: Plan, of: tuple[str, str] | None, metric: str) -> Number | None:
    """A metric of a task of a sealed evaluation. Raises InputError: its file is damaged."""
    if of is None:
        return None
    stage, task = of
    with contextlib.suppress(KeyError):
        store = plan.stage(stage).store(run.workspace)
        path = results.find(store.output) if store.seal.exists() else None
        if path is not None:
            try:
                return number_of(results.read(path)[task]["metrics"][metric])
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{path}: cannot be read as the metrics of an evaluation: {error}") from error
    return None


def of_members(family: Family, found: Sequence[MemberStatus]) -> FamilyStatus:
    """The chains with their ranks and the effects of the keys."""
    ranking = family.record.ranking
    if ranking is None:
        return FamilyStatus(family, tuple(found))
    sign = -1 if ranking.higher else 1
    values = {one.member.run: one.value.value for one in found if one.value is not None}
    order = sorted(values, key=lambda run: sign * values[run])
    # Equal numbers have equal ranks.
    ranks = {run: 1 + sum(sign * values[other] < sign * values[run] for other in order) for run in order}
    members = tuple(replace(one, rank=ranks.get(one.member.run)) for one in found)
    measured = [(one.member.values, values[one.member.run]) for one in members if one.member.run in values]
    effects, alone = _effects(family.record.keys, measured, bool(ranking.higher))
    return FamilyStatus(family, members, effects, alone)


def _effects(
    keys: Sequence[str], measured: Sequence[tuple[Mapping[str, Any], float]], higher: bool
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    found: list[Effect] = []
    alone: list[str] = []
    for key in keys:
        by_value: dict[str, list[float]] = {}
        shown = {repr(values[key]): values[key] for values, _ in measured}
        first = next(iter(shown.values()), None)
        for (one, left), (other, right) in combinations(measured, 2):
            if any(one[name] != other[name] for name in keys if name != key) or one[key] == other[key]:
                continue
            if first in (one[key], other[key]):
                change, value = (right - left, other[key]) if one[key] == first else (left - right, one[key])
                by_value.setdefault(repr(value), []).append(change)
        if not by_value:
            alone.append(key)
        for name, changes in by_value.items():
            better = sum(change > 0 if higher else change < 0 for change in changes)
            found.append(
                Effect(key, shown[name], first, len(changes), fmean(changes), min(changes), max(changes), better)
            )
    return tuple(found), tuple(alone)


BEST = "run {run}, best of {tried}"
LUCK = "were all {tried} equally good, the best would still look better by up to {luck:.3g}"
NO_TEST = "nothing measures {metric} on the test split"
NO_SPLITS = "nothing measures {metric} on other examples: the task has no splits"
NO_NUMBER = "{left} of {every} chains have no number (yet)"
ONE_RUN = "one training run of each; another seed may rank them otherwise"


def choice(found: FamilyStatus, say: Callable[[str], str] = str) -> list[str]:
    """What to say of the best chain, and how far to believe it; empty where none has a number. ``say``: a text in
    another language, with its places in braces."""
    best, ranking = found.best, found.ranking
    if best is None or ranking is None or best.value is None:
        return []
    tried = len(found.ranked)
    name = say(BEST).format(run=best.run.id, tried=tried)
    test = None if best.test is None else best.test.value
    told = [winner.said(name, ranking.name, best.value.value, test, say)]
    now = best.value
    if tried > 1 and now.low is not None and now.high is not None:
        luck = winner.lead_by_luck(tried) * (now.high - now.low) / (2 * NormalDist().inv_cdf(1 - CHANCE))
        told.append(say(LUCK).format(tried=tried, luck=luck))
    if ranking.test is None:
        told.append(say(NO_TEST if ranking.has_splits else NO_SPLITS).format(metric=ranking.name))
    left = len(found.members) - tried
    if left:
        told.append(say(NO_NUMBER).format(left=left, every=len(found.members)))
    told.append(say(ONE_RUN))
    return told
