"""The win rate at equal length: what is left of it where the two answers are as long as each other.

Judges prefer long answers. A logistic regression of the verdicts on the difference in length says how likely a win is
where that is 0 (Dubois et al. 2024, "Length-Controlled AlpacaEval", in its form for one pair of models).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from jobs.core.power import CHANCE
from jobs.evaluate.intervals import Array
from jobs.evaluate.observed import MetricEstimate, Observed

FEWEST_PROMPTS = 10
STEPS, CLOSE = 100, 1e-10


def features(own: Sequence[int], other: Sequence[int]) -> Array:
    """Of each pair 1 and the difference of the two lengths, in standard deviations and bent so that one very long
    answer does not decide: (pairs, 2)."""
    apart = np.asarray(own, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    spread = float(apart.std())
    return np.column_stack([np.ones(len(apart)), np.tanh(apart / spread) if spread else np.zeros(len(apart))])


def controlled(
    wins: Sequence[float], own: Sequence[int], other: Sequence[int], groups: Sequence[Hashable]
) -> Observed | str:
    """The win rate at equal length, or the reason why it cannot be said. ``wins``: of each prompt 1, 0, or 1/2;
    ``own`` and ``other``: lengths of the two answers in characters; prompts of one group are one observation.

    The interval is that of the intercept, by the variance that holds for shares and groups, too (sandwich)."""
    won = np.asarray(wins, dtype=np.float64)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    if len(names) < FEWEST_PROMPTS:
        return f"{len(names)} prompts, it needs {FEWEST_PROMPTS}"
    x = features(own, other)
    if not x[:, 1].any():
        return "the two answers of every prompt are as far apart in length"
    if (reason := _separable(won, x[:, 1])) is not None:
        return reason
    fitted = fit(x, won)
    if fitted is None:
        return "the regression does not converge"
    chance = 1 / (1 + np.exp(-(x @ fitted)))
    bread = np.linalg.inv((x * (chance * (1 - chance))[:, None]).T @ x)
    scores = np.zeros((len(names), 2))
    np.add.at(scores, [names[name] for name in groups], x * (won - chance)[:, None])
    meat = scores.T @ scores * len(names) / (len(names) - 1)
    error = math.sqrt(float((bread @ meat @ bread)[0, 0]))
    if error < 1e-9:
        return "the verdicts do not differ"
    return _observed(float(fitted[0]), float(fitted[1]), error, len(won), len(names))


def _observed(intercept: float, slope: float, error: float, n: int, groups: int) -> Observed:
    from scipy import special

    free = groups - 2

    def share(logit: float) -> float:
        return float(special.expit(logit))

    def chance(at: float) -> float:
        """Of an intercept like this one or larger, where the truth is the win rate ``at``."""
        return float(special.stdtr(free, (special.logit(min(max(at, 0.0), 1.0)) - intercept) / error))

    wide = -float(special.stdtrit(free, CHANCE)) * error
    value = share(intercept)
    method = f"logistic, intercept {intercept:+.3f}, length {slope:+.3f}"
    deviation = error * value * (1 - value) * math.sqrt(groups)
    found = MetricEstimate(value, share(intercept - wide), share(intercept + wide), n, groups, method, deviation)
    return Observed(found, chance, lambda at: 1 - chance(at))


def fit(x: Array, won: Array) -> Array | None:
    """The coefficients of the most likely logistic regression of shares ``won`` on ``x``; None: none was found."""
    found = np.zeros(x.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-(x @ found)))
        information = (x * (chance * (1 - chance))[:, None]).T @ x
        try:
            step = np.linalg.solve(information, x.T @ (won - chance))
        except np.linalg.LinAlgError:
            return None
        found = found + step / max(1.0, float(np.abs(step).max()))  # far from the goal Newton's steps are too long
        if float(np.abs(step).max()) < CLOSE:
            return np.asarray(found)
    return None


def _separable(won: Array, apart: Array) -> str | None:
    """Why there is no most likely regression: a length parts what was won from what was lost."""
    up, down = apart[won > 0], apart[won < 1]
    if not len(up) or not len(down):
        return "every prompt was won" if not len(down) else "every prompt was lost"
    if up.min() >= down.max() or down.min() >= up.max():
        return "the difference in length alone says which answer wins"
    return None
