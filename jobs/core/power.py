"""How many examples show what, at the level of a gate: read when it is judged, and when the chain is planned.

A distance from a threshold is shown where it is so many standard errors that a test at 2.5 % on one side finds it four
times in five. ``deviation``: standard error times the root of the number of examples.
"""

from __future__ import annotations

import math
from statistics import NormalDist

CHANCE = 0.025
POWER = 0.8
SIGMAS = NormalDist().inv_cdf(1 - CHANCE) + NormalDist().inv_cdf(POWER)


def decides(deviation: float, examples: int) -> float:
    """The smallest distance that so many examples show."""
    return SIGMAS * deviation / math.sqrt(examples)


def needed(deviation: float, distance: float) -> float:
    """How many examples show this ``distance``."""
    return (SIGMAS * deviation / distance) ** 2
