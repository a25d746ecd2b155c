"""Intervals of metrics, and of how far they moved.

A metric is a function of sums over examples, so a bootstrap resample is a vector of weights. Examples of one group
(a document, a subject) are drawn together: they are one observation. Three rules hold at small numbers, where the plain
percentiles of a bootstrap are too narrow:

* fewer than ``FEWEST`` groups have no interval;
* a share of examples has Wilson's interval (Wilson 1927), which is no point at 0 of 60; how far it moved on the same
  examples has that of Bonett and Price (2012), which adds one to each of the two counts of changed examples;
* other percentiles are taken further out, so that an interval of a mean is as wide as Student's (Hesterberg 2015, "What
  Teachers Should Know About the Bootstrap", section 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jobs.core.power import CHANCE, wilson
from jobs.evaluate.observed import FEWEST, MetricEstimate, Observed

Array = NDArray[np.float64]

NORMAL = NormalDist()
BLOCK = 4_000_000
"""Draws that are held at once."""


class Clusters:
    """Which examples are drawn together (``index``: of each the number of its group), and the draws: the same for all
    metrics of a task."""

    def __init__(self, names: Sequence[Hashable], resamples: int, seed: int) -> None:
        numbers: dict[Hashable, int] = {}
        self.index = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)
        self.count = len(numbers)
        self.single = self.count == len(self.index)
        self._resamples, self._seed = resamples, seed

    def sums(self, values: Array) -> Array:
        """Sums over each resample of ``values`` (examples, columns): (resamples, columns)."""
        of_group = np.zeros((self.count, values.shape[1]))
        np.add.at(of_group, self.index, values)
        generator = np.random.default_rng(self._seed)
        found = np.empty((self._resamples, values.shape[1]))
        step = max(1, BLOCK // max(1, self.count))
        for start in range(0, self._resamples, step):
            rows = min(step, self._resamples - start)
            drawn = generator.integers(0, self.count, size=(rows, self.count))
            drawn += np.arange(rows)[:, None] * self.count
            weights = np.bincount(drawn.ravel(), minlength=rows * self.count).reshape(rows, self.count)
            with np.errstate(invalid="ignore"):  # of values that are no numbers, which ``of_draws`` looks for
                found[start : start + rows] = weights.astype(np.float64) @ of_group
        return found


def of_draws(value: float, drawn: Array, n: int, groups: int) -> Observed:
    """A metric from its resamples."""
    from scipy import special  # not for those who only read settings

    spread = math.sqrt((groups - 1) / groups) if groups > 1 else 0.0

    known = groups > 1 and math.isfinite(value) and bool(np.isfinite(drawn).all())

    def chance(side: NDArray[np.bool_]) -> float:
        if not known:  # no threshold lies below or above what is no number
            return 1.0
        share = (int(side.sum()) + 1) / (len(drawn) + 2)
        return float(special.stdtr(groups - 1, NORMAL.inv_cdf(share) * spread))

    low = high = deviation = None
    if known and groups >= FEWEST:
        share = NORMAL.cdf(float(special.stdtrit(groups - 1, CHANCE)) / spread)
        low, high = (float(end) for end in np.quantile(drawn, (share, 1 - share)))
        deviation = float(drawn.std(ddof=1)) * math.sqrt(groups)
    found = MetricEstimate(value, low, high, n, groups, "bootstrap", deviation)
    return Observed(found, lambda at: chance(drawn <= at), lambda at: chance(drawn >= at))


def of_share(successes: float, n: int) -> Observed:
    """A share of ``n`` examples, of which each may count in part: the interval is then wider than it had to be."""
    share, few = successes / n, n < FEWEST

    def score(at: float) -> float:
        error = math.sqrt(at * (1 - at) / n)
        return (share - at) / error if error else math.copysign(math.inf, share - at) if share != at else 0.0

    low, high = (None, None) if few else wilson(share, n)
    found = MetricEstimate(share, low, high, n, n, "Wilson", None if few else math.sqrt(share * (1 - share)))
    return Observed(found, lambda at: NORMAL.cdf(-score(at)), lambda at: NORMAL.cdf(score(at)))


def of_changed_share(better: float, worse: float, n: int) -> Observed:
    """How far a share moved on the same ``n`` examples, of which ``better`` rose to 1 and ``worse`` fell to 0."""
    z = NORMAL.inv_cdf(1 - CHANCE)
    first, second = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    middle, variance = first - second, first + second - (first - second) ** 2
    error = math.sqrt(variance / (n + 2))
    few = n < FEWEST
    low, high = (None, None) if few else (max(-1.0, middle - z * error), min(1.0, middle + z * error))
    found = MetricEstimate((better - worse) / n, low, high, n, n, "Bonett-Price", None if few else math.sqrt(variance))
    return Observed(
        found,
        lambda at: NORMAL.cdf((at - middle) / error),
        lambda at: NORMAL.cdf((middle - at) / error),
    )


def over_groups(found: Observed, n: int) -> Observed:
    """The same of ``n`` examples in as many groups as it has examples."""
    one = found.estimate
    return replace(found, estimate=replace(one, n=n, method=f"{one.method} over groups"))
