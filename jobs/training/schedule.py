"""The learning rate of a step: warm-up, then the schedule. Standard library only."""

from __future__ import annotations

import math

from jobs.training.settings import FallingRate


def learning_rate_factor(step: int, settings: FallingRate) -> float:
    """Learning rate of ``step`` (from 0) over ``lr``: warm-up from 0, then the schedule down to ``min_lr``.

    Where it falls from the warm-up on to 0, the same curves as transformers' ``get_scheduler``.
    """
    if step < settings.warmup_steps:
        return step / max(1, settings.warmup_steps)
    if settings.schedule == "constant":
        return 1.0
    falls = settings.decay_steps or settings.steps - settings.warmup_steps
    done = min(1.0, max(0.0, (step - settings.steps + falls) / max(1, falls)))
    floor = settings.min_lr / settings.lr
    height = 1.0 - done if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return floor + (1.0 - floor) * height
