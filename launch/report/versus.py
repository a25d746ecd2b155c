"""``overnight compare``: runs compared with the first of them, what differs in their files before what differs in their
numbers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.base.text import duration, table
from launch.plan import backends
from launch.plan.model import PlannedStage
from launch.report import repeat
from launch.runs.rundir import Run
from launch.slurm.environment import scrubbed
from launch.status import report, results
from launch.status.report import RunReport

SECONDS = 600.0
"""How long the interpreter of an evaluation may take to compare two of them."""


@dataclass(frozen=True)
class Change:
    """One metric of one evaluation in two runs, on the examples that both have; ``corrected``: the chance of such a
    change if there were none, for the family of all metrics of the two (Holm)."""

    evaluation: str
    task: str
    metric: str
    before: float
    now: float
    low: float | None
    high: float | None
    n: int
    higher_is_better: bool
    corrected: float
    moved: tuple[int, int, int] | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or empty where chance explains it."""
        if self.low is None or self.corrected > 0.05:
            return ""
        return "better" if (self.now > self.before) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Against:
    """A run against the first. ``same``: evaluations that are one entry of the store; ``refused``: task of an
    evaluation -> why it cannot be compared."""

    before: RunReport
    now: RunReport
    difference: str
    changes: tuple[Change, ...]
    same: tuple[str, ...]
    refused: dict[str, str]


def of_runs(runs: Sequence[Run]) -> list[Against]:
    """Every other run against the first. Raises InputError: one is named twice, or what ``make`` raises."""
    for number, run in enumerate(runs):
        if run in runs[:number]:
            raise InputError(f"run {run.id} is named twice")
    first, *others = map(report.of_run, runs)
    return [make(first, one) for one in others]


def make(before: RunReport, now: RunReport) -> Against:
    """What differs between two runs.

    Raises:
        InputError: the Python of an evaluation cannot compare.
    """
    changes: list[Change] = []
    same, refused = [], {}
    old = {one.name: one for one in before.plan.stages if one.produces_kind == "evaluation"}
    for stage in now.plan.stages:
        other = old.get(stage.name)
        if stage.produces_kind != "evaluation" or other is None:
            continue
        if stage.fingerprint == other.fingerprint and before.run.workspace == now.run.workspace:
            same.append(stage.name)
            continue
        outputs = [one.store(made.run.workspace) for one, made in ((other, before), (stage, now))]
        if not all(store.seal.exists() for store in outputs):
            refused[stage.name] = "it is not sealed in both runs"
            continue
        answer = _ask(stage, outputs[0].output, outputs[1].output)
        for task, known in answer["tasks"].items():
            if "refused" in known:
                refused[f"{stage.name}.{task}"] = known["refused"]
            for metric, entry in known.get("metrics", {}).items():
                changes.append(_change(stage.name, task, metric, entry))
    difference = repeat.difference(before.run, now.run)
    return Against(before, now, difference, tuple(changes), tuple(same), refused)


def _change(evaluation: str, task: str, metric: str, entry: dict[str, Any]) -> Change:
    change = entry["change"]
    moved = (change["better"], change["worse"], change["same"]) if "better" in change else None
    first = float(entry["before"])
    return Change(evaluation, task, metric, first, first + change["value"], change["low"], change["high"], change["n"],
                  entry["higher_is_better"], change["corrected"], moved)  # fmt: skip


def _ask(stage: PlannedStage, before: Path, now: Path) -> dict[str, Any]:
    """The numbers, from the interpreter that the evaluation ran in: it has what they are computed with."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump({"before": str(before), "now": str(now), "settings": dict(stage.settings)}, file)
        file.flush()
        (answer,) = backends.answers_of(
            stage.python, ["compare", file.name], scrubbed(os.environ), SECONDS, f"to compare {stage.name}"
        )
    if "error" in answer:
        raise InputError(f"{stage.name} cannot be compared with {stage.python}: {answer['error']}")
    return dict(answer)


def lines(found: Sequence[Against]) -> list[str]:
    """For people."""
    shown: list[str] = []
    for one in found:
        shown += [f"run {one.now.run.id} against {one.before.run.id}", ""]
        shown += one.difference.splitlines() if one.difference else ["pipeline and profile are the same"]
        rows = [_row(change) for change in one.changes]
        header = ("evaluation", "metric", "before", "now", "change", "95 % interval", "examples", "chance", "")
        shown += ["", *table(header, rows, right=(2, 3, 4, 6, 7))] if rows else []
        shown += [f"{name}: the same result, made once" for name in one.same]
        shown += [f"{name}: not comparable: {why}" for name, why in one.refused.items()]
        shown += ["", *table(COST, cost((one.before, one.now)), right=(1, 2, 3)), ""]
    note = "chance: of such a change if there were none, corrected for the number of metrics"
    return [*shown, *([note] if any(one.changes for one in found) else [])]


def _row(one: Change) -> list[str]:
    interval = "too few" if one.low is None or one.high is None else f"[{one.low:+.4g}, {one.high:+.4g}]"
    name = results.title(one.task, one.metric)
    flips = "" if one.moved is None else f" ({one.moved[0]} better, {one.moved[1]} worse)"
    return [one.evaluation, name, f"{one.before:.4g}", f"{one.now:.4g}", f"{one.now - one.before:+.4g}", interval,
            str(one.n), f"{one.corrected:.3g}", one.verdict + flips]  # fmt: skip


COST = ("run", "time of its jobs", "GPU-hours", "continued")


def cost(runs: Sequence[RunReport]) -> list[list[str]]:
    """Under ``COST``, what each run took that it made itself."""
    rows = []
    for made in runs:
        own = [stage for stage in made.stages if not stage.of_run and stage.elapsed is not None]
        hours = sum(stage.gpu_hours or 0.0 for stage in own)
        time = duration(sum(stage.elapsed or 0.0 for stage in own))
        rows.append([made.run.id, time, f"{hours:.2f}" if hours else "", str(sum(stage.continued for stage in own))])
    return rows


def as_json(found: Sequence[Against]) -> list[dict[str, Any]]:
    """The same as plain data."""
    return [
        {
            "before": one.before.run.id,
            "run": one.now.run.id,
            "difference": one.difference,
            "changes": [{**asdict(change), "verdict": change.verdict} for change in one.changes],
            "same": list(one.same),
            "refused": one.refused,
        }
        for one in found
    ]
