"""The table of improvements: what the sealed evaluations of a run measured, and how that changed.

Numbers, intervals, differences and gates are those that the evaluation itself wrote; nothing is computed again here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.core import files, hashing, results, seal
from jobs.core.paths import Workspace
from launch.base import answers, paint
from launch.base.errors import InputError
from launch.base.text import table
from launch.plan.model import Plan, PlannedStage
from launch.runs.rundir import Run


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval, over ``n`` examples; None where they are too few for one."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class MetricResult:
    """One metric of one evaluation. ``before`` is over the examples that both evaluations measured; ``gate`` says what
    the metric had to show, and ``verdict`` what came of it: ``passed``, ``missed`` or ``undecided``. ``by``: the
    metric over the examples of each category."""

    evaluation: str
    compared_with: str | None
    task: str
    metric: str
    now: Number
    before: float | None = None
    difference: Number | None = None
    gate: str | None = None
    tier: str | None = None
    verdict: str | None = None
    needs: int | None = None
    higher_is_better: bool | None = None
    moved: tuple[int, int, int] | None = None
    """Examples that got better, got worse and stayed, where the metric is a share of them."""
    by: dict[str, Number] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What else is to be said of its task."""


def collect(plan: Plan, workspace: Workspace) -> list[MetricResult]:
    """Every metric of the sealed evaluations, and of one that missed its gate. Raises InputError: a damaged file."""
    evaluations = [stage for stage in plan.stages if stage.produces_kind == "evaluation"]
    return [one for stage in evaluations for one in of_evaluation(stage, workspace)]


def of_evaluation(stage: PlannedStage, workspace: Workspace) -> list[MetricResult]:
    """Every metric of one evaluation; none where it has measured nothing yet. Raises InputError: a damaged file."""
    output = output_of(stage, workspace)
    measured = results.find(output) if output is not None else None
    return [] if measured is None else _of_stage(stage, measured)


def output_of(stage: PlannedStage, workspace: Workspace) -> Path | None:
    """Where an evaluation left what it measured; None: nowhere yet.

    A missed gate leaves it unsealed: nobody builds on it, but the user wants to see it.
    """
    store = stage.store(workspace)
    outputs = [store.output] if store.seal.exists() else store.partials()
    return outputs[-1] if outputs else None


def title(task: str, metric: str) -> str:
    """What a metric of a task is called in tables."""
    return metric if metric == task else f"{task} {metric}"


def of_people(run: Run) -> list[MetricResult]:
    """What people said of answers of the run (``overnight human``). Raises InputError: a damaged file."""
    found = []
    for path in sorted(run.paths.people.glob(f"*/{results.FILE}")):
        with _readable(path):
            for known in results.read(path).values():
                first, second = known["models"]
                for name, entry in known["metrics"].items():
                    found.append(_measured(f"people: {second}", first, name, name, entry))
    return found


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as the metrics of an evaluation: {error}") from error


def of_tasks(name: str, against: str | None, tasks: Mapping[str, Any]) -> list[MetricResult]:
    """What an evaluation outside of a run measured."""
    return [
        replace(_measured(name, against, task, metric, entry), notes=_notes(known))
        for task, known in tasks.items()
        for metric, entry in known["metrics"].items()
    ]


def _of_stage(stage: PlannedStage, path: Path) -> list[MetricResult]:
    other = stage.inputs.get("compare_to")
    against = other.stage if other else None
    with _readable(path):
        points = results.read_points(path)
        measured: dict[str, dict[str, Any]] = {f"{stage.name} at step {step}": it for step, it in points.items()}
        return [
            one
            for name, tasks in (measured or {stage.name: results.read(path)}).items()
            for one in of_tasks(name, against if other or name == stage.name else "step 0", tasks)
        ]


def _measured(evaluation: str, other: str | None, task: str, metric: str, entry: dict[str, Any]) -> MetricResult:
    difference, gate = entry.get("change"), entry.get("gate") or {}
    moved = None
    if difference is not None and "better" in difference:
        moved = int(difference["better"]), int(difference["worse"]), int(difference["same"])
    return MetricResult(
        evaluation,
        other,
        task,
        metric,
        number_of(entry),
        entry.get("before"),
        None if difference is None else number_of(difference),
        gate.get("rule"),
        gate.get("tier"),
        gate.get("verdict"),
        gate.get("needs"),
        entry.get("higher_is_better"),
        moved,
        by={str(name): number_of(one) for own in (entry.get("by") or {}).values() for name, one in own.items()},
    )


def _notes(known: Mapping[str, Any]) -> tuple[str, ...]:
    given = known.get("notes", [])
    texts = [str(one) for one in given] if isinstance(given, list) else []
    return tuple("".join(letter if letter.isprintable() else " " for letter in text) for text in texts)


def notes_of(found: Sequence[MetricResult]) -> list[str]:
    """What is to be said of the tasks, once each."""
    return list(dict.fromkeys(f"{one.evaluation}, {one.task}: {note}" for one in found for note in one.notes))


def number_of(entry: Mapping[str, Any]) -> Number:
    """A metric, or a change, as it stands in a file. Raises KeyError, TypeError, ValueError: it is none."""
    low, high = (None if entry[end] is None else float(entry[end]) for end in ("low", "high"))
    return Number(float(entry["value"]), low, high, int(entry["n"]))


def lines(found: list[MetricResult]) -> list[str]:
    """The table as text, a block an evaluation."""
    rows: list[list[str]] = []
    shown: str | None = None
    for one in found:
        name = one.evaluation + (f" against {one.compared_with}" if one.compared_with else "")
        if shown not in (None, name):
            rows.append([""] * len(_HEADER))
        rows.append([name if shown != name else "", *_cells(one)])
        for part, number in one.by.items() if len(one.by) <= MOST_PARTS else ():
            rows.append(["", f"  {part}", "", f"{number.value:.4g}", _interval(number), "", "", str(number.n), ""])
        shown = name
    return [*table(_HEADER, rows, right=(2, 3, 4, 5, 6, 7)), *(f"* {note}" for note in notes_of(found))]


MOST_PARTS = 12
"""Categories of a metric that the table shows; of more, as the subjects of MMLU, results.json has them."""

_HEADER = ("evaluation", "metric", "before", "value", "95 % interval", "change", "95 % interval", "examples", "gate")


def _cells(one: MetricResult) -> list[str]:
    gate = "" if one.gate is None else f"{one.gate}: {_verdict(one)}"
    before = "" if one.before is None else f"{one.before:.4g}"
    change = ["", ""] if one.difference is None else [f"{one.difference.value:+.4g}", _interval(one.difference, "+")]
    return [
        title(one.task, one.metric),
        before,
        f"{one.now.value:.4g}",
        _interval(one.now),
        *change,
        str(one.now.n),
        gate,
    ]


def _verdict(one: MetricResult) -> str:
    said = {"missed": "MISSED", "undecided": "UNDECIDED"}.get(one.verdict or "", one.verdict or "")
    if one.verdict == "undecided" and one.needs is not None:
        said += f", {one.needs:,} examples would decide"
    return f"{said} (advisory)" if one.tier == "advisory" else said


def _interval(number: Number, sign: str = "") -> str:
    if number.low is None or number.high is None:
        return "too few"
    return f"[{number.low:{sign}.4g}, {number.high:{sign}.4g}]"


def print_results(run: Run, plan: Plan, as_json: bool) -> None:
    """Print the table of metrics, if there is one, and keep it as JSON in the run. Raises InputError: a broken file."""
    found = collect(plan, run.workspace) + of_people(run)
    light = _light(plan, run.workspace)
    value = {"run": run.id, "pipeline": plan.pipeline, "results": [asdict(one) for one in found], "light_seals": light}
    if found:
        files.write_json(run.paths.results, value)
    if as_json:
        print(answers.dumps(value))
    elif found:
        paint.out(["", *lines(found), "", f"also in {run.paths.results}"])
    if light and not as_json:
        print(f"\n{seal.LIGHT_NOTE}: {', '.join(light)}")


def _light(plan: Plan, workspace: Workspace) -> list[str]:
    """Stages whose output has a seal that does not detect bit flips, whichever run made it."""
    found = []
    for stage in plan.stages:
        path = stage.store(workspace).seal
        with contextlib.suppress(seal.SealBroken):  # missing, or torn: the stage that builds on it says so
            if seal.load(path).depth is hashing.Depth.LIGHT:
                found.append(stage.name)
    return found
