"""What to think of the best of several: part of its lead is luck of the examples that chose it."""

from __future__ import annotations

from statistics import NormalDist

CURSE = "the best of several looks better than it is"

_NORMAL = NormalDist()
_STEPS = 4000


def said(chosen: str, metric: str, value: float, test: float | None, chosen_on: str = "the validation split") -> str:
    """A choice in a line: the number that chose it, and the one to believe; ``test`` None: there is none."""
    text = f"{chosen} by {metric}: {value:.4g} on {chosen_on}"
    if test is None:
        return f"{text}; {CURSE}, and no other examples were measured"
    return f"{text}, {test:.4g} on the test split; {CURSE}, believe the second"


def lead_by_luck(tried: int) -> float:
    """How many standard errors above the truth the best of ``tried`` equal candidates is expected to look: the mean of
    the largest of so many independent normal numbers. Candidates that are measured on the same examples have less."""
    if tried < 2:
        return 0.0
    width = 16.0 / _STEPS
    points = (-8.0 + (step + 0.5) * width for step in range(_STEPS))
    return sum(x * tried * _NORMAL.pdf(x) * _NORMAL.cdf(x) ** (tried - 1) for x in points) * width
