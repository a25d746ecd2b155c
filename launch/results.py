"""The table of improvements: what the sealed evaluations of a run measured, against what each compares itself with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from jobs.core import files
from jobs.core.paths import Workspace
from launch.plan import Plan, PlannedStage
from launch.rundir import Run
from launch.table import table

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Line:
    """One metric of one evaluation. ``low`` and ``high`` bound its bootstrap 95 % interval."""

    evaluation: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    compare_to: str | None
    before: float | None
    difference: float | None
    gate: str | None


def collect(plan: Plan, workspace: Workspace) -> list[Line]:
    """Every metric of every sealed evaluation, in the order of the plan."""
    lines: list[Line] = []
    for stage in plan.stages:
        measured = _read(stage, workspace)
        if measured is None:
            continue
        parent = stage.inputs.get("compare_to")
        before = _read(plan.stage(parent.stage), workspace) if parent is not None else None
        lines += _lines(stage, measured, parent.stage if parent else None, before or {})
    return lines


def _read(stage: PlannedStage, workspace: Workspace) -> dict[str, Any] | None:
    """The metrics of a sealed evaluation; None for any other stage."""
    if stage.produces_kind != "evaluation":
        return None
    store = workspace.entry(stage.produces_kind, stage.fingerprint)
    if not store.seal.exists():
        return None
    value = files.read_json_or_none(store.output / METRICS_FILE)
    return value if isinstance(value, dict) else None


def _tasks(measured: dict[str, Any]) -> dict[str, Any]:
    found = measured.get("tasks", measured)
    return {name: task for name, task in found.items() if isinstance(task, dict)}


def _lines(
    stage: PlannedStage, measured: dict[str, Any], compare_to: str | None, before: dict[str, Any]
) -> list[Line]:
    found = []
    earlier = _tasks(before)
    for task, metrics in _tasks(measured).items():
        for metric, entry in metrics.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("value"), int | float):
                continue
            value = float(entry["value"])
            old = earlier.get(task, {}).get(metric, {}).get("value")
            line = Line(
                stage.name, task, metric, value, entry.get("low"), entry.get("high"), entry.get("n"), compare_to, old,
                None if old is None else value - float(old), _gate(stage, task, metric, value, old),
            )  # fmt: skip
            found.append(line)
    return found


def _gate(stage: PlannedStage, task: str, metric: str, value: float, before: float | None) -> str | None:
    """``passed`` or ``missed`` where the pipeline asks that this metric rise or fall."""
    rules = stage.settings.get("gate", {})
    rule = rules.get(f"{task}.{metric}") or rules.get(metric)
    if rule is None or before is None:
        return None
    better = value > before if rule["must"] == "rise" else value < before
    return "passed" if better else "missed"


def lines_of_table(lines: list[Line]) -> list[str]:
    """The table as text."""
    rows = [
        [
            line.evaluation, line.task, line.metric, _number(line.before), _number(line.value), _interval(line),
            "" if line.difference is None else f"{line.difference:+.4g}", "" if line.n is None else str(line.n),
            line.gate or "",
        ]
        for line in lines
    ]  # fmt: skip
    header = ("evaluation", "task", "metric", "before", "value", "95 % interval", "change", "n", "gate")
    return table(header, rows, right=(3, 4, 6, 7))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(line: Line) -> str:
    return "" if line.low is None or line.high is None else f"[{line.low:.4g}, {line.high:.4g}]"


def print_results(run: Run, plan: Plan, as_json: bool) -> None:
    """Print the table and keep it as JSON in the run; a pipeline without evaluations has none."""
    lines = collect(plan, run.workspace)
    value = {"run": run.id, "pipeline": plan.pipeline, "results": [asdict(line) for line in lines]}
    if lines:
        files.write_json(run.paths.results, value)
    if as_json:
        print(json.dumps(value))
    elif lines:
        print()
        print("\n".join(lines_of_table(lines)))
        print(f"\nkept in {run.paths.results}")
