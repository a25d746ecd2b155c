"""What to think of the best of several: part of its lead is luck of the examples that chose it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

CURSE = "the best of several looks better than it is"
ALONE = "{chosen} by {metric}: {value:.4g} on the validation split; {curse}, and no other examples were measured"
UNSPLIT = (
    "{chosen} by {metric}: {value:.4g} on its rows, of which there is no other split; {curse}, and no other examples "
    "were measured"
)
TESTED = (
    "{chosen} by {metric}: {value:.4g} on the validation split, {test:.4g} on the test split; {curse}, "
    "believe the second"
)

_NORMAL = NormalDist()
_STEPS = 4000


def said(
    chosen: str,
    metric: str,
    value: float,
    test: float | None,
    say: Callable[[str], str] = str,
    *,
    is_split: bool = True,
) -> str:
    """A choice in a line: the number that chose it, and the one to believe; ``test`` None: there is none. ``say``: a
    text in another language, with its places in braces. ``is_split``: the rows have a validation split and a test
    split; else all of them chose."""
    facts = {"chosen": chosen, "metric": metric, "value": value, "test": test, "curse": say(CURSE)}
    text = TESTED if test is not None else ALONE if is_split else UNSPLIT
    return say(text).format(**facts)


def lead_by_luck(tried: int) -> float:
    """How many standard errors above the truth the best of ``tried`` equal candidates is expected to look: the mean of
    the largest of so many independent normal numbers. Candidates that are measured on the same examples have less."""
    if tried < 2:
        return 0.0
    width = 16.0 / _STEPS
    points = (-8.0 + (step + 0.5) * width for step in range(_STEPS))
    return sum(x * tried * _NORMAL.pdf(x) * _NORMAL.cdf(x) ** (tried - 1) for x in points) * width
