"""What a metric came to, with what chance explains of it: what gates look at. Without numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FEWEST = 5
"""Groups of examples below which there is no interval."""


@dataclass(frozen=True)
class MetricEstimate:
    """A value, or how far it moved, over ``n`` examples in ``groups``, with its 95 % interval.

    ``low``, ``high``: None where there are too few groups. ``deviation``: standard error times the root of ``groups``,
    from which follows what another number of examples would show.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int
    method: str
    deviation: float | None = None


def shown(one: MetricEstimate, before: float | None = None) -> str:
    """What a gate looked at: a value, or where ``before`` is given how far it moved from there."""
    sign = "" if before is None else "+"
    interval = (
        f"too few for an interval ({one.groups} of at least {FEWEST})"
        if one.low is None
        else f"95 % interval [{one.low:{sign}.4f}, {one.high:{sign}.4f}]"
    )
    if before is None:
        return f"{one.value:.4f}, {interval} over {one.n} examples"
    after = before + one.value
    return f"{before:.4f} -> {after:.4f}, difference {one.value:+.4f}, {interval} over {one.n} examples"


@dataclass(frozen=True)
class Observed:
    """What a metric came to, with what is needed to hold it against a threshold."""

    estimate: MetricEstimate
    below: Callable[[float], float]
    """The chance of what was seen, or of more, if the truth were at or below a threshold."""
    above: Callable[[float], float]
    """The same, at or above it."""
