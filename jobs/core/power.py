"""How many examples show what, at the level of a gate: read when it is judged, when the chain is planned, and when
people's answers are counted.

A distance from a threshold is shown where it is so many standard errors that a test at 2.5 % on one side finds it four
times in five. ``deviation``: standard error times the root of the number of examples.
"""

from __future__ import annotations

import math
from statistics import NormalDist

CHANCE = 0.025
POWER = 0.8
LEVEL, SURE = NormalDist().inv_cdf(1 - CHANCE), NormalDist().inv_cdf(POWER)
SIGMAS = LEVEL + SURE


def decides(deviation: float, examples: int) -> float:
    """The smallest distance that so many examples show."""
    return SIGMAS * deviation / math.sqrt(examples)


def needed(deviation: float, distance: float) -> float:
    """How many examples show this ``distance``."""
    return (SIGMAS * deviation / distance) ** 2


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` examples (Wilson 1927), which is no point at 0 of 60.

    Of a mean of values between 0 and 1 it is at least as wide as it has to be: none of them scatters more than a share.
    """
    z = NormalDist().inv_cdf(1 - CHANCE)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the two are equal but for rounding.
    return (max(0.0, middle - half) if share > 0 else 0.0), (min(1.0, middle + half) if share < 1 else 1.0)
