"""When training ends early, by the losses of its validations alone."""

from __future__ import annotations

import math

import pytest

from jobs.core.settings import EarlyStopping
from jobs.core.validation import best_step, early_text, stop_step

LOSSES = dict(enumerate([3.0, 2.0, 2.5, 1.9, 1.95, 1.9, 1.89, 1.7], start=1))


@pytest.mark.parametrize(
    ("patience", "min_change", "min_steps", "stop"),
    [
        (1, 0.0, 0, 3),
        (2, 0.0, 0, 6),
        (2, 0.05, 0, 6),
        (2, 0.15, 0, 4),  # 1.9 is no more than 0.15 better than 2.0
        (2, 0.0, 7, None),  # 1.89 at step 7 is better again
        (1, 0.0, 4, 5),
        (3, 0.0, 0, None),
        (3, 0.0, 8, None),
    ],
)
def test_the_step_at_which_training_ends(patience: int, min_change: float, min_steps: int, stop: int | None) -> None:
    wanted = EarlyStopping(patience=patience, min_change=min_change, min_steps=min_steps)
    assert stop_step(LOSSES, wanted) == stop
    for known in range(1, len(LOSSES) + 1):  # what is known until a step decides, whatever comes after
        found = stop_step({step: LOSSES[step] for step in range(known, 0, -1)}, wanted)
        assert found == (stop if stop is not None and known >= stop else None)


def test_the_best_step_is_the_first_of_equal_ones() -> None:
    assert best_step({}) is None
    assert best_step({30: 1.5, 10: 1.5, 20: 1.75}) == 10
    assert best_step(LOSSES) == 8


def test_words() -> None:
    assert early_text({"stopped_early": {"step": 40, "of": 100}}) == "stopped early at step 40 of 100"
    for other in ({}, None, {"stopped_early": "yes"}, {"stopped_early": {"step": math.pi}}):
        assert early_text(other) == ""
