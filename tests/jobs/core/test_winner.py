"""How far the best of several equal ones looks above the truth, against the tables of order statistics."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from jobs.core import winner


@pytest.mark.parametrize(
    ("tried", "errors"),
    # Harter 1961, "Expected values of normal order statistics", table 1: the largest of n.
    [(1, 0.0), (2, 0.56419), (3, 0.84628), (4, 1.02938), (5, 1.16296), (10, 1.53875), (20, 1.86748), (100, 2.50759)],
)
def test_the_largest_of_normal_numbers(tried: int, errors: float) -> None:
    assert winner.lead_by_luck(tried) == pytest.approx(errors, abs=2e-5)


def test_against_draws() -> None:
    rng = random.Random(5)
    drawn = fmean(max(rng.gauss(0, 1) for _ in range(9)) for _ in range(20_000))
    assert winner.lead_by_luck(9) == pytest.approx(drawn, abs=0.02)


def test_both_numbers_are_told() -> None:
    said = winner.said("step 40 of 8 saves", "held.loss", 2.0, 2.25)
    assert said == (
        "step 40 of 8 saves by held.loss: 2 on the validation split, 2.25 on the test split; "
        "the best of several looks better than it is, believe the second"
    )
    assert winner.said("run a", "m", 1.0, None).endswith("and no other examples were measured")
