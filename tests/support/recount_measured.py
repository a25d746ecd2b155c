"""What evaluations measured, counted again from their samples: see ``tests.support.recount``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.raw import Counted, Numbers, Stage, exactly, json_lines

OF_WIDTH = 0.25
"""How far an end of a bootstrap interval may be from Student's, in widths of it."""


def samples_of(stage: Stage) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> id -> sample."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for one in json_lines(stage.store / "output" / "samples.jsonl"):
        found.setdefault(one["task"], {})[one["id"]] = one
    return found


def columns(metric: str, sample: Mapping[str, Any]) -> tuple[float, float]:
    """The two sums whose ratio a metric is (of perplexity its logarithm)."""
    return {
        "perplexity": lambda: (sample["nll"], sample["tokens"]),
        "bits_per_byte": lambda: (sample["nll"] / math.log(2), sample["bytes"]),
        "accuracy": lambda: (float(sample["chosen"] > sample["rejected"]), 1.0),
        "margin": lambda: (sample["chosen"] - sample["rejected"], 1.0),
        "loss": lambda: (sample["loss"], 1.0),
    }[metric]()


def metrics_of(task: str, sample: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of a task; the back end ``toy`` knows one only."""
    return ("loss",) if "loss" in sample else {
        "perplexity": ("perplexity", "bits_per_byte"), "preferences": ("accuracy", "margin"),
    }[task]  # fmt: skip


def value(metric: str, pairs: Sequence[tuple[float, float]]) -> float:
    ratio = sum(one for one, _ in pairs) / sum(other for _, other in pairs)
    return math.exp(ratio) if metric == "perplexity" else ratio


def influence(metric: str, pairs: Sequence[tuple[float, float]]) -> list[float]:
    """How much each example moves the metric (the derivative of a ratio), times their number."""
    top, bottom = (sum(one[side] for one in pairs) for side in (0, 1))
    scale = len(pairs) / bottom * (math.exp(top / bottom) if metric == "perplexity" else 1.0)
    return [scale * (one - other * top / bottom) for one, other in pairs]


def student(at: float, moves: Sequence[float], source: str) -> tuple[Counted, Counted]:
    """The ends of Student's interval, and how far a bootstrap may be from them."""
    from scipy import special

    n = len(moves)
    error = math.sqrt(sum(one * one for one in moves) / (n - 1) / n)
    half = float(special.stdtrit(n - 1, 0.975)) * error
    slack = 2 * half * OF_WIDTH
    near, far = (Counted(end - slack, end + slack, f"{source}, Student's interval") for end in (at - half, at + half))
    return near, far


def wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def bonett_price(better: int, worse: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    one, other = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = z * math.sqrt((one + other - (one - other) ** 2) / (n + 2))
    return max(-1.0, one - other - half), min(1.0, one - other + half)


def of_evaluation(stage: Stage, others: Mapping[str, Stage]) -> Iterator[tuple[str, str, Numbers]]:
    """Task, metric and its numbers as they stand under an entry of ``results``."""
    other = stage.plan["inputs"].get("compare_to")
    before = samples_of(others[other["stage"]]) if other and stage.plan["backend"] != "toy" else {}
    for task, samples in samples_of(stage).items():
        for metric in metrics_of(task, next(iter(samples.values()))):
            pairs = [columns(metric, one) for one in samples.values()]
            yield task, metric, _now(metric, pairs) | _change(metric, before.get(task, {}), samples)


def _now(metric: str, pairs: Sequence[tuple[float, float]]) -> Numbers:
    at = value(metric, pairs)
    if metric == "accuracy":
        ends = [exactly(end, "samples.jsonl, Wilson's formula") for end in wilson(at, len(pairs))]
    else:
        ends = [*student(at, influence(metric, pairs), "samples.jsonl")]
    told = exactly(at, "samples.jsonl")
    return {"now.value": told, "now.n": exactly(len(pairs), "samples.jsonl"), "now.low": ends[0], "now.high": ends[1]}


def _change(metric: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Numbers:
    both = [name for name in after if name in before]
    if not both:
        return {}
    first, second = ([columns(metric, samples[name]) for name in both] for samples in (before, after))
    at, came = value(metric, first), value(metric, second)
    source = "samples.jsonl of both"
    found = {"before": exactly(at, source), "difference.value": exactly(came - at, source),
             "difference.n": exactly(len(both), source)}  # fmt: skip
    if metric == "accuracy":
        better = sum(new[0] > old[0] for old, new in zip(first, second, strict=True))
        worse = sum(new[0] < old[0] for old, new in zip(first, second, strict=True))
        counts = (better, worse, len(both) - better - worse)
        found |= {f"moved.{number}": exactly(count, source) for number, count in enumerate(counts)}
        ends = [exactly(end, f"{source}, Bonett and Price") for end in bonett_price(better, worse, len(both))]
    else:
        moves = [new - old for old, new in zip(influence(metric, first), influence(metric, second), strict=True)]
        ends = [*student(came - at, moves, source)]
    return found | {"difference.low": ends[0], "difference.high": ends[1]}
