"""Metrics and their uncertainty.

Every metric here is a function of sums over examples (of negative log-likelihoods and token counts, of n-gram counts,
...). So an example is a short vector of statistics, a bootstrap resample is a vector of weights, and all resamples of a
metric are one matrix product: weights (resamples, examples) x statistics (examples, columns).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHRF_ORDER = 6
CHRF_BETA = 2.0


@dataclass(frozen=True)
class TaskDefinition:
    """One evaluation task.

    ``format`` of its data; ``statistics`` of a sample (one line of samples.jsonl); ``metrics``: name -> function from
    sums of statistics (..., columns) to values (...).
    """

    format: str
    statistics: Callable[[Mapping[str, Any]], Sequence[float]]
    metrics: dict[str, Callable[[Array], Array]]


@dataclass(frozen=True)
class MetricEstimate:
    """A value with its bootstrap 95 % interval over ``n`` examples."""

    value: float
    low: float
    high: float
    n: int


def chrf_statistics(hypothesis: str, reference: str) -> list[float]:
    """For n = 1..6: number of character n-grams of the hypothesis, of the reference, and of both (clipped).

    White space is left out, as in chrF (Popović 2015, https://aclanthology.org/W15-3049).
    """
    counts: list[float] = []
    mine, right = "".join(hypothesis.split()), "".join(reference.split())
    for order in range(1, CHRF_ORDER + 1):
        found, wanted = _ngrams(mine, order), _ngrams(right, order)
        counts += [found.total(), wanted.total(), (found & wanted).total()]
    return counts


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def chrf(sums: Array) -> Array:
    """chrF2 (0 to 100) from sums of ``chrf_statistics`` (..., 18).

    Precision and recall are averaged over the orders that both sides have, then joined to an F-score with beta = 2; the
    convention of sacrebleu's CHRF(), so that the numbers can be compared.
    """
    parts = sums[..., : 3 * CHRF_ORDER].reshape(*sums.shape[:-1], CHRF_ORDER, 3)
    found, wanted, both = parts[..., 0], parts[..., 1], parts[..., 2]
    usable = (found > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(axis=-1), 1)
    precision = np.where(usable, both / np.maximum(found, 1), 0).sum(axis=-1) / orders
    recall = np.where(usable, both / np.maximum(wanted, 1), 0).sum(axis=-1) / orders
    factor = CHRF_BETA**2
    bottom = factor * precision + recall
    return np.asarray(100 * np.where(bottom > 0, (1 + factor) * precision * recall / np.maximum(bottom, 1e-16), 0))


def _mean(column: int) -> Callable[[Array], Array]:
    """Mean of a column: its sum over the sum of the last column."""
    return lambda sums: np.asarray(sums[..., column] / sums[..., -1])


TASKS: dict[str, TaskDefinition] = {
    "perplexity": TaskDefinition(
        "corpus",
        lambda sample: (sample["nll"], sample["tokens"]),
        {"perplexity": lambda sums: np.asarray(np.exp(sums[..., 0] / sums[..., 1]))},
    ),
    "answers": TaskDefinition(
        "instructions", lambda sample: (sample["nll"], sample["tokens"]), {"answer_loss": _mean(0)}
    ),
    "translation": TaskDefinition(
        "instructions",
        lambda sample: (*chrf_statistics(sample["hypothesis"], sample["reference"]), float(sample["exact"]), 1.0),
        {"chrf": chrf, "exact_match": _mean(3 * CHRF_ORDER)},
    ),
    "preferences": TaskDefinition(
        "preferences",
        lambda sample: (float(sample["margin"] > 0), sample["margin"], 1.0),
        {"accuracy": _mean(0), "margin": _mean(1)},
    ),
}
"""Task -> how it is computed. ``answer_loss`` is in nats a token, ``margin`` in nats a pair."""


def statistics(task: str, samples: Sequence[Mapping[str, Any]]) -> Array:
    """Statistics of the samples of a task, (examples, columns)."""
    return np.array([TASKS[task].statistics(sample) for sample in samples], dtype=np.float64)


def resample(count: int, resamples: int, seed: int) -> Array:
    """How often each example is drawn in each resample, (resamples, examples)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def estimate(
    metric: Callable[[Array], Array], values: Array, weights: Array, before: Array | None = None
) -> MetricEstimate:
    """A metric with its percentile interval; with ``before`` how far it moved on the same examples, which are resampled
    together (paired bootstrap)."""
    value, drawn = metric(values.sum(axis=0)), metric(weights @ values)
    if before is not None:
        value, drawn = value - metric(before.sum(axis=0)), drawn - metric(weights @ before)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return MetricEstimate(float(value), float(low), float(high), len(values))
