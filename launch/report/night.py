"""What the stages of a run did when: in the queue, starting, training, saving, training again what a start had lost.

From files alone: the journal (submitted), claims (a start begins), events, progress and verdicts (it ends).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.core import attempts, files
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths
from jobs.core.verdict import Verdict
from launch.plan.model import Plan, PlannedStage
from launch.runs.journal import Event, starts_of, verdicts_of
from launch.runs.rundir import Run
from launch.status import stretches
from launch.status.model import FAILURES
from launch.status.stretches import Stretch


class Doing(StrEnum):
    """What the time of a stage goes to."""

    WAITING = "waiting"  # for a stage that it needs
    QUEUED = "queued"
    STARTING = "starting"
    WORKING = "working"
    SAVING = "saving"
    AGAIN = "made again"
    ENDING = "ending"


@dataclass(frozen=True)
class Span:
    """``seconds`` from ``start`` (epoch seconds) on."""

    doing: Doing
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class StageStart:
    """One start of a stage: when, on which node, how it ended in words (empty: well, or not yet), and where its curve
    goes on."""

    time: float
    host: str
    job: str
    restart: int
    ended: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageNight:
    """Spans in order, none over another. ``saving``: seconds within the work in which the training paused for its
    saves. ``gpus``: of the request."""

    stage: str
    gpus: int
    spans: tuple[Span, ...]
    starts: tuple[StageStart, ...]
    saving: float = 0.0

    def seconds(self, *doing: Doing) -> float:
        """How long it did one of these."""
        return sum(span.seconds for span in self.spans if span.doing in doing)


@dataclass(frozen=True)
class Night:
    """All stages that this run made itself, from the submission to the last thing that happened."""

    start: float
    end: float
    stages: tuple[StageNight, ...]

    @property
    def spent(self) -> dict[str, float]:
        """What the seconds of allocations went to, each counted by its GPUs (where no stage has one, by itself)."""
        found = dict.fromkeys((Doing.WORKING, Doing.STARTING, Doing.SAVING, Doing.AGAIN, Doing.ENDING), 0.0)
        on_gpus = any(stage.gpus for stage in self.stages)
        for stage in self.stages:
            weight = stage.gpus if on_gpus else 1
            for doing in found:
                found[doing] += weight * stage.seconds(doing)
            found[Doing.SAVING] += weight * stage.saving
            found[Doing.WORKING] -= weight * stage.saving
        return {doing.value: value for doing, value in found.items()}

    @property
    def goodput(self) -> float | None:
        """The share of it that was work of which nothing was lost; None: nothing has run."""
        spent = self.spent
        total = sum(spent.values())
        return spent[Doing.WORKING] / total if total else None

    @property
    def queued(self) -> float:
        """Seconds in which a stage was in the queue and none of the run worked."""
        at_work = _union(
            (span.start, span.end)
            for stage in self.stages
            for span in stage.spans
            if span.doing not in (Doing.QUEUED, Doing.WAITING)
        )
        waiting = _union(
            (span.start, span.end) for stage in self.stages for span in stage.spans if span.doing is Doing.QUEUED
        )
        both = sum(
            max(0.0, min(end, other_end) - max(start, other))
            for start, end in waiting
            for other, other_end in at_work
        )  # fmt: skip
        return sum(end - start for start, end in waiting) - both


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def of_run(run: Run, plan: Plan, now: float, seen: Mapping[Path, Sequence[Stretch]] | None = None) -> Night | None:
    """None: nothing of it is known, not even a submission. ``now`` ends what is not over. ``seen``: progress files that
    have been read already."""
    created, submitted = None, dict[str, float]()
    for entry in run.journal.read():
        created = float(entry["time"]) if created is None else created
        if entry["event"] in (Event.SUBMITTED, Event.ADOPTED):
            submitted.setdefault(str(entry.get("stage")), float(entry["time"]))
    if created is None:
        return None
    ends: dict[str, float] = {}
    found = []
    for stage in plan.stages:
        made = _of_stage(run, stage, _Known(submitted.get(stage.name), ends, created, now, seen or {}))
        if made is not None:
            found.append(made)
            ends[stage.name] = made.spans[-1].end if made.spans else created
    return Night(created, max([created, *ends.values()]), tuple(found))


@dataclass(frozen=True)
class _Known:
    """What is known before a stage is looked at: when it was submitted, when those before it ended, what has been
    read."""

    submitted: float | None
    ends: dict[str, float]
    created: float
    now: float
    seen: Mapping[Path, Sequence[Stretch]]


def _of_stage(run: Run, stage: PlannedStage, known: _Known) -> StageNight | None:
    store = stage.store(run.workspace)
    own = run.paths.stage(stage.name).root
    mine = [one for one in attempts.all_of(store) if Path(one.stage_dir) == own]
    begun = [(attempt, start) for attempt in mine for start in starts_of(store, attempt)]
    if not begun and known.submitted is None:
        return None
    spans: list[Span] = []
    since = known.submitted if known.submitted is not None else begun[0][1].time
    ready = max([since, *(known.ends[name] for name in stage.parents if name in known.ends)])
    first = begun[0][1].time if begun else known.now
    _add(spans, Doing.WAITING, since, min(ready, first))
    _add(spans, Doing.QUEUED, min(ready, first), first)
    path = StagePaths(own).progress
    reported = known.seen[path] if path in known.seen else stretches.read(path)
    noted = list(files.read_json_lines(StagePaths(own).events))
    said = {(one.job, one.restart): one for attempt in mine for one in verdicts_of(store, attempt)}
    sealed_at = _sealed_at(stage, run)
    starts = []
    reached = 0
    for number, (attempt, start) in enumerate(begun):
        after = begun[number + 1][1].time if number + 1 < len(begun) else None
        verdict = said.get((start.job, start.restart))
        own_part = _within(reported, start, after)
        signs = [*(one.times[-1] for one in own_part[-1:]), *_noted(noted, start, after)]
        end = _end(start, verdict, signs, after, sealed_at, known.now)
        is_open = verdict is None and after is None and sealed_at is None
        reached = _work(spans, start, own_part, end, reached, is_open)
        if after is not None:
            _add(spans, Doing.QUEUED, end, after)
        starts.append(_started(attempt, start, verdict))
    gpus = (stage.resources.gpus_per_node or 0) * stage.resources.nodes
    return StageNight(stage.name, gpus, tuple(spans), tuple(starts), _saving(noted))


def _within(reported: Sequence[Stretch], start: Claim, after: float | None) -> list[Stretch]:
    """What a start reported before the next one began."""
    own = (one.between(start.time, after) for one in reported if one.restart == start.restart)
    return [one for one in own if one is not None]


def _noted(notes: Iterable[Mapping[str, Any]], start: Claim, after: float | None) -> Iterator[float]:
    """When a start noted something but its verdict, which has a time of its own."""
    for one in notes:
        at, is_own = one.get("time"), (one.get("job"), one.get("restart")) == (start.job, start.restart)
        if not is_own or one.get("event") == "verdict" or not isinstance(at, int | float):
            continue
        if start.time <= at < (after or math.inf):
            yield at


def _end(
    start: Claim, verdict: Verdict | None, signs: Sequence[float], after: float | None, sealed_at: float | None,
    now: float,
) -> float:  # fmt: skip
    """When a start ended: by its own verdict, or by its last sign of life where another start had to judge it."""
    last = max([start.time, *signs])
    if verdict is not None and not verdict.judged_by:
        return max(verdict.time, last)
    if verdict is not None or after is not None:
        return last
    return max(last, sealed_at if sealed_at is not None else now)


def _sealed_at(stage: PlannedStage, run: Run) -> float | None:
    path = stage.store(run.workspace).seal
    found = files.state(path)
    return None if found is None else path.stat().st_mtime


def _work(spans: list[Span], start: Claim, reported: Sequence[Stretch], end: float, reached: int, is_open: bool) -> int:
    """The spans of one start, which may be ``is_open``: at work; the newest step that it or an earlier one reported."""
    if not reported:
        _add(spans, Doing.STARTING, start.time, end)
        return reached
    steps = [one for one in reported if not one.phase]
    old = next((one for one in reversed(steps) if one.steps[0] <= reached), None)
    again = None if old is None else old.times[bisect_right(old.steps, reached) - 1]
    began = (steps or reported)[0].times[0]
    _add(spans, Doing.STARTING, start.time, began)
    if again is not None:
        _add(spans, Doing.AGAIN, began, again)
        began = again
    worked = end if is_open else reported[-1].times[-1]
    _add(spans, Doing.WORKING, began, worked)
    _add(spans, Doing.ENDING, worked, end)
    return max([reached, *(one.steps[-1] for one in steps)])


def _add(spans: list[Span], doing: Doing, start: float, end: float) -> None:
    """Nothing of no length, and nothing before what is there: clocks of nodes differ."""
    start = max([start, *(span.end for span in spans[-1:])])
    if end > start:
        spans.append(Span(doing, start, end))


def _started(attempt: Attempt, start: Claim, verdict: Verdict | None) -> StageStart:
    ended = ""
    if verdict is not None and verdict.failure.value != "none":
        ended = FAILURES[verdict.failure]
    nodes = tuple(verdict.nodes) if verdict is not None else ()
    return StageStart(start.time, start.host, start.job, start.restart, ended, nodes)


def _saving(notes: Iterable[Mapping[str, Any]]) -> float:
    """Seconds in which the training paused for its saves."""
    total = 0.0
    for event in notes:
        seconds = event.get("seconds")
        if event.get("event") == "save_took" and not event.get("sealed") and isinstance(seconds, int | float):
            total += seconds
    return total
