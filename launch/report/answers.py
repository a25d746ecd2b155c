"""Answers of the models of a run side by side, those first that got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from jobs.core import strict
from jobs.core.paths import Workspace
from launch.plan.model import Plan, PlannedStage
from launch.status import results

MOST = 200
"""Rows of a task that a page shows."""


@dataclass(frozen=True)
class Answered:
    """One prompt. ``answers`` by evaluation, in the order of the plan; ``likeness``: of the last answer to the
    reference less that of the first, from -1 to 1, by difflib; None: only one evaluation has it."""

    row: str
    asked: str
    reference: str
    answers: dict[str, str]
    likeness: float | None


def of_run(plan: Plan, workspace: Workspace) -> dict[str, list[Answered]]:
    """Task -> its rows, most changed first, worse before better."""
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for stage in plan.stages:
        if stage.produces_kind != "evaluation":
            continue
        for task, samples in of_stage(stage, workspace).items():
            for name, sample in samples.items():
                found.setdefault(task, {}).setdefault(name, {})[stage.name] = sample
    return {task: _sorted([_row(name, own) for name, own in rows.items()]) for task, rows in found.items()}


def of_stage(stage: PlannedStage, workspace: Workspace) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> row -> the sample of one evaluation, of all that have an answer."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for sample in _samples(stage, workspace):
        found.setdefault(sample["task"], {})[sample["id"]] = sample
    return found


def likeness(reference: str, before: str, now: str) -> float:
    """How much nearer to the reference an answer came: from -1 to 1, by difflib."""
    if before == now:
        return 0.0
    old, new = (SequenceMatcher(None, reference, answer, False).ratio() for answer in (before, now))
    return new - old


def moved(change: float) -> Literal["better", "worse", "same"]:
    """What a change of likeness is called; one of a hundredth is none."""
    return "worse" if change < -0.01 else "better" if change > 0.01 else "same"


def _row(name: str, own: dict[str, dict[str, Any]]) -> Answered:
    first, last = next(iter(own.values())), list(own.values())[-1]
    reference = str(last.get("reference", ""))
    change = None
    if len(own) > 1:
        change = likeness(reference, str(first["hypothesis"]), str(last["hypothesis"]))
    texts = {stage: str(sample["hypothesis"]) for stage, sample in own.items()}
    return Answered(name, str(last.get("asked", "")), reference, texts, change)


def _sorted(rows: list[Answered]) -> list[Answered]:
    return sorted(rows, key=lambda row: (row.likeness is None, row.likeness or 0.0, row.row))


def shown(rows: list[Answered]) -> list[Answered]:
    """As many as a page holds: the most changed of both ends."""
    if len(rows) <= MOST:
        return rows
    return [*rows[: MOST // 2], *rows[len(rows) - MOST // 2 :]]


def _samples(stage: PlannedStage, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Those with an answer; what is damaged or half written is passed over."""
    output = results.output_of(stage, workspace)
    if output is None or not (path := output / "samples.jsonl").is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if '"hypothesis"' not in line:
                continue
            try:
                sample = strict.parse(line)
            except ValueError:
                continue
            if isinstance(sample, dict) and isinstance(sample.get("task"), str) and isinstance(sample.get("id"), str):
                yield sample
