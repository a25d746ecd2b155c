"""Metrics and their uncertainty.

Every metric here is a function of sums over examples (of negative log-likelihoods and token counts, of n-gram counts,
...). So an example is a short vector of statistics, and all metrics of a task share the resamples of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.evaluate import intervals
from jobs.evaluate.intervals import Array, Clusters
from jobs.evaluate.observed import Observed


@dataclass(frozen=True)
class Metric:
    """``of``: from sums of statistics (..., columns) to values (...). ``share``: the column whose mean the metric is,
    where that is 0 or 1 of each example (of a benchmark: can be). ``among``: the column that is 1 of the examples
    that it is about, where those are not all. ``needs``: a field of samples without which there is no such number.
    ``halves``: an example may count half."""

    of: Callable[[Array], Array]
    higher_is_better: bool
    share: int | None = None
    among: int | None = None
    needs: str | None = None
    halves: bool = False


def mean(column: int) -> Callable[[Array], Array]:
    """Mean of a column: its sum over the sum of the last column."""
    return lambda sums: np.asarray(sums[..., column] / sums[..., -1])


def part(column: int, among: int) -> Callable[[Array], Array]:
    """Mean of a column over the examples of which the column ``among`` is 1; not a number where there are none."""

    def value(sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(sums[..., column] / sums[..., among])

    return value


def is_share(metric: Metric, *values: Array) -> bool:
    """Whether the metric is a share of these examples."""
    return metric.share is not None and all(bool(np.isin(one[:, metric.share], (0, 1)).all()) for one in values)


def value(metric: Metric, values: Array, groups: Clusters, drawn: Array) -> Observed:
    """A metric over ``values`` (examples, columns), of which ``drawn`` are the sums over each resample."""
    shares = metric.share is not None and (metric.halves or is_share(metric, values))
    if shares and groups.single:
        return intervals.of_share(float(values[:, metric.share].sum()), len(values))
    found, among = float(metric.of(values.sum(axis=0))), metric.of(drawn)
    if shares and _is_alike(among):
        return intervals.over_groups(intervals.of_share(found * groups.count, groups.count), len(values))
    return intervals.of_draws(found, among, len(values), groups.count)


def _is_alike(drawn: Array) -> bool:
    """Whether all resamples say the same: groups without a difference, which a bootstrap takes for certainty."""
    return float(np.ptp(drawn)) < 1e-12


def change(metric: Metric, before: Array, after: Array, groups: Clusters, drawn: tuple[Array, Array]) -> Observed:
    """How far a metric moved on the same examples, which are drawn together."""
    if metric.share is not None and groups.single and is_share(metric, before, after):
        moved = after[:, metric.share] - before[:, metric.share]
        return intervals.of_changed_share(int((moved > 0).sum()), int((moved < 0).sum()), len(moved))
    first, second = (float(metric.of(values.sum(axis=0))) for values in (before, after))
    step, among = second - first, metric.of(drawn[1]) - metric.of(drawn[0])
    if metric.share is not None and not groups.single and is_share(metric, before, after) and _is_alike(among):
        count = groups.count
        found = intervals.of_changed_share(max(step, 0.0) * count, max(-step, 0.0) * count, count)
        return intervals.over_groups(found, len(after))
    return intervals.of_draws(step, among, len(after), groups.count)
