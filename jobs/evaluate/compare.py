"""An evaluation against an earlier one, example by example, and the gate on the differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.core.verdict import FailureClass
from jobs.evaluate import metrics
from jobs.evaluate.metrics import MetricEstimate
from jobs.evaluate.settings import EvaluateSettings
from jobs.training.settings import BadSettings

Samples = dict[str, list[dict[str, Any]]]


class GateFailed(RuntimeError):
    """A metric did not move as the pipeline demands, beyond what chance explains."""

    failure = FailureClass.GATE


@dataclass(frozen=True)
class MetricChange:
    """A metric before and after on the same examples, and the difference with its interval."""

    before: float
    after: float
    difference: MetricEstimate

    def passes(self, must: str) -> bool:
        """Whether the whole interval lies on the demanded side of zero."""
        return self.difference.low > 0 if must == "rise" else self.difference.high < 0


def read_samples(path: Path) -> Samples:
    """Samples of an evaluation by task."""
    found: Samples = {}
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            sample = json.loads(line)
            found.setdefault(sample["task"], []).append(sample)
    return found


def check_gate(settings: EvaluateSettings, earlier: Samples | None) -> None:
    """Refuse a gate that could not be judged, before any computing.

    Raises:
        BadSettings: nothing to compare with, or a metric that is not measured on both sides.
    """
    if settings.gate and earlier is None:
        raise BadSettings("a gate needs compare_to, an earlier evaluation")
    for name in settings.gate:
        task = _task_of(name)
        if task is None or task not in settings.tasks:
            raise BadSettings(f"gate {name!r}: no task of this evaluation measures it")
        if earlier is not None and task not in earlier:
            raise BadSettings(f"gate {name!r}: the evaluation in compare_to did not run the task {task!r}")


def _task_of(name: str) -> str | None:
    """Task of a metric written ``metric`` or ``task.metric``."""
    for task, kind in metrics.TASKS.items():
        for metric in kind.metrics:
            if name in (metric, f"{task}.{metric}"):
                return task
    return None


def changes(now: Samples, earlier: Samples, settings: EvaluateSettings) -> dict[str, dict[str, MetricChange]]:
    """Task -> metric -> change, for the tasks that both ran, on the examples that both have.

    Raises:
        BadSettings: the texts of the two are of other tokens.
    """
    found: dict[str, dict[str, MetricChange]] = {}
    for task in now.keys() & earlier.keys():
        old = {sample["id"]: sample for sample in earlier[task]}
        common = [sample for sample in now[task] if sample["id"] in old]
        if not common:
            continue
        for sample in common if task == "perplexity" else ():
            here, there = sample["tokens"], old[sample["id"]]["tokens"]
            if here != there:
                text = f"example {sample['id']!r} of perplexity has {here} tokens here and {there} in compare_to"
                raise BadSettings(f"{text}: of another tokenizer or other data the losses of tokens cannot be compared")
        before = metrics.statistics(task, [old[sample["id"]] for sample in common])
        after = metrics.statistics(task, common)
        weights = metrics.resample(len(common), settings.resamples, settings.seed)
        found[task] = {
            name: MetricChange(
                float(metric(before.sum(axis=0))),
                float(metric(after.sum(axis=0))),
                metrics.estimate(metric, after, weights, before),
            )
            for name, metric in metrics.TASKS[task].metrics.items()
        }
    return found


def summary(
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    changed: Mapping[str, Mapping[str, MetricChange]],
    settings: EvaluateSettings,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Content of metrics.json: task -> metric -> value, interval, n and, where compared, the change and the gate."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for task, found in samples.items():
        values = metrics.statistics(task, found)
        weights = metrics.resample(len(values), settings.resamples, settings.seed)
        result[task] = {}
        for name, metric in metrics.TASKS[task].metrics.items():
            entry: dict[str, Any] = asdict(metrics.estimate(metric, values, weights))
            change = changed.get(task, {}).get(name)
            if change is not None:
                entry |= {"before": change.before, "difference": asdict(change.difference)}
                must = settings.gate.get(f"{task}.{name}") or settings.gate.get(name)
                if must is not None:
                    entry["gate"] = {"must": must, "passed": change.passes(must)}
            result[task][name] = entry
    return result


def apply_gate(changed: Mapping[str, Mapping[str, MetricChange]], settings: EvaluateSettings, where: Path) -> None:
    """Judge the gate.

    Raises:
        GateFailed: names every metric that missed, before and after, the interval, and the file with all numbers.
    """
    missed = []
    for name, must in settings.gate.items():
        task = _task_of(name)
        change = changed.get(task or "", {}).get(name.rsplit(".", 1)[-1])
        if change is None:
            missed.append(f"{name} must {must}, but no example was measured before and after")
        elif not change.passes(must):
            difference = change.difference
            missed.append(
                f"{name} must {must}: {change.before:.4f} -> {change.after:.4f}, difference {difference.value:+.4f}, "
                f"95 % interval [{difference.low:+.4f}, {difference.high:+.4f}] over {difference.n} examples"
            )
    if missed:
        raise GateFailed("; ".join(missed) + f" (all numbers: {where})")
