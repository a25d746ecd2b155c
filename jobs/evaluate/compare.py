"""An evaluation against an earlier one, example by example, and the gates on what came of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.evaluate import gates, lost, metrics, observed
from jobs.evaluate.gates import Judgement
from jobs.evaluate.intervals import Array, Clusters
from jobs.evaluate.kept import Samples
from jobs.evaluate.kinds import Task
from jobs.evaluate.observed import MetricEstimate, Observed
from jobs.evaluate.settings import EvaluateSettings
from jobs.training.settings import BadSettings

MOST_PROBLEMS = 0.05
"""Share of the examples of a task without a value, above which none of its gates is decided: those that fail may be
the hard ones."""


@dataclass(frozen=True)
class Measured:
    """One metric. ``before`` and ``change`` are over the examples that both evaluations measured; ``moved`` says how
    many of those got better, got worse and stayed, where the metric is a share of them. ``by``: tag of the examples ->
    its values -> the metric over those examples."""

    now: Observed
    higher_is_better: bool
    by: dict[str, dict[str, MetricEstimate]] = field(default_factory=dict)
    before: float | None = None
    change: Observed | None = None
    moved: tuple[int, int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """What stands in evaluation.json."""
        found = {**asdict(self.now.estimate), "higher_is_better": self.higher_is_better}
        if self.by:
            found["by"] = {tag: {name: asdict(one) for name, one in own.items()} for tag, own in self.by.items()}
        if self.change is not None:
            found |= {"before": self.before, "change": asdict(self.change.estimate)}
        if self.moved is not None:
            found["change"] |= dict(zip(("better", "worse", "same"), self.moved, strict=True))
        return found

    def shown(self, rule: gates.GateRule) -> str:
        """What a gate looked at."""
        seen = self.change if rule.compares else self.now
        assert seen is not None
        return observed.shown(seen.estimate, (self.before or 0.0) if rule.compares else None)


@dataclass(frozen=True)
class Evaluation:
    """Everything that came of one: task -> metric -> numbers, and gate -> judgement. ``alone``: task -> how many of
    its examples the other evaluation does not have; ``problems``: how many could not be measured; ``notes``: what else
    is to be said of it."""

    tasks: dict[str, dict[str, Measured]]
    judged: dict[str, Judgement] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def check_gate(settings: EvaluateSettings, earlier: Samples | None) -> None:
    """Refuse a gate that could not be judged, before any computing.

    Raises:
        BadSettings: nothing to compare with, or a metric that is not measured on both sides.
    """
    for name, rule in settings.gate.items():
        task, _ = metric_of(name, settings)
        if not rule.compares:
            continue
        if earlier is None:
            raise BadSettings(f"gate {name!r} ({rule}) needs compare_to, an earlier evaluation")
        if task not in earlier:
            raise BadSettings(f"gate {name!r}: the evaluation in compare_to did not run the task {task!r}")


def metric_of(name: str, settings: EvaluateSettings) -> tuple[str, str]:
    """Task and metric of a gate written ``metric`` or ``task.metric``.

    Raises:
        BadSettings: no task of this evaluation measures it, or several do.
    """
    found = [
        (task.name, metric)
        for task in settings.tasks.values()
        for metric in task.metrics
        if name in (metric, f"{task.name}.{metric}")
    ]
    if len(found) > 1:
        names = " or ".join(f"{task}.{metric}" for task, metric in found)
        raise BadSettings(f"gate {name!r}: several tasks measure it: write {names}")
    if found:
        return found[0]
    raise BadSettings(f"gate {name!r}: no task of this evaluation measures it")


def evaluate(now: Samples, earlier: Samples | None, settings: EvaluateSettings) -> Evaluation:
    """Numbers of all tasks, changes against ``earlier`` on the examples that both have, and the gates judged.

    Raises:
        BadSettings: an example was shown to the two models in other words, or as other tokens; a gate on examples that
            the two do not share.
    """
    tasks: dict[str, dict[str, Measured]] = {}
    alone: dict[str, int] = {}
    problems: dict[str, int] = {}
    notes: dict[str, list[str]] = {}
    doubts: dict[str, str | None] = {}
    for task, every in now.items():
        samples = [sample for sample in every if "problem" not in sample]
        if not samples:
            raise BadSettings(f"no example of {task} could be measured: {every[0]['problem']}")
        problems[task] = len(every) - len(samples)
        of = settings.tasks[task]
        old = {
            sample["id"]: sample
            for sample in (earlier or {}).get(task, ())
            if "problem" not in sample and of.kind.compares(of.keys, sample)
        }
        mine = [sample for sample in samples if of.kind.compares(of.keys, sample)]
        common = [sample for sample in mine if sample["id"] in old]
        if old:
            alone[task] = len(mine) + len(old) - 2 * len(common)
        _refuse_others(task, common, old)
        pairs = [(old[sample["id"]], sample) for sample in common]
        tasks[task] = _of_task(of, samples, pairs, settings)
        more = of.kind.more(of, samples, pairs, functools.partial(_groups, settings=settings))
        tasks[task] |= {name: Measured(*found) for name, found in more.metrics.items()}
        notes[task] = list(more.notes)
        doubts[task] = of.kind.doubt(of, {name: one.now.estimate for name, one in tasks[task].items()})
    seen: dict[str, tuple[Observed, float]] = {}
    for name, rule in settings.gate.items():
        task, metric = metric_of(name, settings)
        one = tasks.get(task, {}).get(metric)
        looked_at = None if one is None else one.change if rule.compares else one.now
        if one is None and (why := lost.reason(settings.tasks[task], now.get(task, ()))) is not None:
            raise BadSettings(f"gate {name!r}: no example of {task} that it is about could be measured: {why}")
        if one is None or looked_at is None:
            raise BadSettings(f"gate {name!r} ({rule}): the two evaluations have no example of {task} in common")
        seen[name] = looked_at, one.before or 0.0
    judged = gates.judge(settings.gate, seen)
    for name, judgement in judged.items():
        task, _ = metric_of(name, settings)
        sides = {"": now}
        if earlier is not None and settings.gate[name].compares:
            sides[" before"] = earlier
        for side, of_side in sides.items():
            count, among = lost.of_metric(settings.tasks[task], metric, of_side.get(task, ()))
            if count > MOST_PROBLEMS * among:
                why = f"{count} of {among} examples could not be measured{side}"
                judged[name] = replace(judgement, verdict="undecided", needs=None, why=why)
                break
        else:
            if doubts[task] is not None:
                judged[name] = replace(judgement, verdict="undecided", needs=None, why=doubts[task])
    for task, doubt in doubts.items():
        notes[task] += [doubt] if doubt else []
    return Evaluation(tasks, judged, alone, problems, notes)


def _of_task(
    of: Task, samples: Sequence[dict[str, Any]], pairs: Sequence[tuple[Any, Any]], settings: EvaluateSettings
) -> dict[str, Measured]:
    """The metrics of a task; those that are about some of its examples from these alone."""
    known = _measured(of, samples)
    found: dict[str, Measured] = {}
    for among in dict.fromkeys(metric.among for metric in known.values()):
        own = {name: metric for name, metric in known.items() if metric.among == among}
        found |= _of_some(of, own, _among(of, among, samples), [*_pairs_among(of, among, pairs)], settings)
    return {name: found[name] for name in known if name in found}


def _among(of: Task, among: int | None, samples: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    if among is None:
        return samples
    return [sample for sample in samples if of.kind.statistics(of.keys, sample)[among] == 1]


def _pairs_among(of: Task, among: int | None, pairs: Sequence[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for pair in pairs:
        if _among(of, among, [pair[1]]):
            yield pair


def _statistics(of: Task, samples: Iterable[Mapping[str, Any]]) -> Array:
    return np.array([of.kind.statistics(of.keys, sample) for sample in samples], dtype=np.float64)


def _of_some(
    of: Task,
    wanted: Mapping[str, metrics.Metric],
    samples: Sequence[dict[str, Any]],
    pairs: Sequence[tuple[Any, Any]],
    settings: EvaluateSettings,
) -> dict[str, Measured]:
    """Metrics over these examples, all of which they are about."""
    if not samples:
        return {}
    values, groups = _statistics(of, samples), _groups(samples, settings)
    before, after = (_statistics(of, (pair[side] for pair in pairs)) for side in (0, 1))
    both = _groups([pair[1] for pair in pairs], settings) if pairs else None
    # One pass over the draws: they take longer than all else here.
    sums = np.split(both.sums(np.hstack((before, after))), 2, axis=1) if both is not None else None
    # Where the other evaluation has all examples, too, they are drawn alike.
    drawn = sums[1] if sums is not None and len(pairs) == len(samples) else groups.sums(values)
    old = _measured(of, [pair[0] for pair in pairs])
    found = {}
    for name, metric in wanted.items():
        by = _by(metric, samples, values, settings)
        one = Measured(metrics.value(metric, values, groups, drawn), metric.higher_is_better, by)
        if both is not None and sums is not None and name in old:
            change = metrics.change(metric, before, after, both, (sums[0], sums[1]))
            moved = None
            if metrics.is_share(metric, before, after):
                steps = after[:, metric.share] - before[:, metric.share]
                up, down = int((steps > 0).sum()), int((steps < 0).sum())
                moved = (*((up, down) if metric.higher_is_better else (down, up)), int((steps == 0).sum()))
            first = float(metric.of(before.sum(axis=0)))
            one = replace(one, before=first, change=change, moved=moved)
        found[name] = one
    return found


def _measured(task: Task, samples: Sequence[Mapping[str, Any]]) -> dict[str, metrics.Metric]:
    """The metrics that these samples have the numbers for."""
    first = samples[0] if samples else {}
    return {name: one for name, one in task.metrics.items() if one.needs is None or one.needs in first}


def _by(
    metric: metrics.Metric, samples: Sequence[Mapping[str, Any]], values: Array, settings: EvaluateSettings
) -> dict[str, dict[str, MetricEstimate]]:
    """The metric over the examples of each value of each tag."""
    found: dict[str, dict[str, list[int]]] = {}
    for number, sample in enumerate(samples):
        for tag, value in sample.get("tags", {}).items():
            found.setdefault(tag, {}).setdefault(value, []).append(number)
    numbers: dict[str, dict[str, MetricEstimate]] = {}
    for tag, own in found.items():
        for value, some in sorted(own.items()):
            groups = _groups([samples[number] for number in some], settings)
            part = values[some]
            one = metrics.value(metric, part, groups, groups.sums(part))
            numbers.setdefault(tag, {})[value] = one.estimate
    return numbers


def _groups(samples: Sequence[Mapping[str, Any]], settings: EvaluateSettings) -> Clusters:
    """A sample without a group is one of its own."""
    names = [("group", one["group"]) if "group" in one else ("row", number) for number, one in enumerate(samples)]
    return Clusters(names, settings.resamples, settings.seed)


def _refuse_others(task: str, common: Sequence[Mapping[str, Any]], old: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises BadSettings: the same example went into the two models as other tokens, so that the numbers cannot be
    compared."""
    for sample in common:
        there = old[sample["id"]]
        # An evaluation of an earlier version says how many tokens, and not which.
        name = "prompt" if "prompt" in there else "tokens"
        if sample.get(name) != there.get(name):
            counts = f" ({sample['tokens']} and {there['tokens']})" if "tokens" in sample and "tokens" in there else ""
            raise BadSettings(
                f"example {sample['id']!r} of {task} has other tokens here than in compare_to{counts}: with another "
                "tokenizer, chat template, data or judge the two cannot be compared"
            )


def values(found: Evaluation) -> dict[str, float]:
    """``task.metric`` -> value, for the seal."""
    return {
        f"{task}.{name}": one.now.estimate.value
        for task, measured in found.tasks.items()
        for name, one in measured.items()
    }


def as_json(found: Evaluation, how: Mapping[str, Mapping[str, Any]], settings: EvaluateSettings) -> dict[str, Any]:
    """The tasks of ``jobs.core.results``. ``how``: of each task, how its examples were shown to the model."""
    tasks: dict[str, Any] = {
        task: {**how.get(task, {}), "metrics": {name: one.as_json() for name, one in measured.items()}}
        for task, measured in found.tasks.items()
    }
    for task, count in found.alone.items():
        tasks[task]["not_in_both"] = count
    for task, count in found.problems.items():
        if count:
            tasks[task]["problems"] = count
    for task, entry in tasks.items():
        if notes := [*entry.get("notes", ()), *found.notes.get(task, ())]:
            entry["notes"] = notes
    for name, judged in found.judged.items():
        task, metric = metric_of(name, settings)
        tasks[task]["metrics"][metric]["gate"] = asdict(judged)
    return tasks


def apply_gates(found: Evaluation, settings: EvaluateSettings, where: Path) -> None:
    """Stop the chain where a gate did not pass.

    Raises:
        GateFailed, GateUndecided: name every gate that stops it, the numbers, and the file with all of them.
    """
    said = {}
    for name, judged in found.judged.items():
        task, metric = metric_of(name, settings)
        said[name] = judged, found.tasks[task][metric].shown(settings.gate[name])
    gates.apply(said, settings.missed, settings.undecided, str(where))
