"""What the validations of a stage say: the best of them, and whether training is to end.

Pure functions of the losses that a save holds, so that an interrupted run answers as one without a stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.core.settings import EarlyStopping

SPLIT = "validation"
"""The part of the data that is validated on, and the phase of reports from within a validation."""

LOSS = "validation_loss"
"""Of the report of a step that was validated, and of the seal."""

EARLY, SELECTED = "stopped_early", "selected_step"
"""Keys of a seal's metrics: why training ended before its steps; of which step the finished model is."""

Losses = Mapping[int, float]
"""Step -> loss on the validation split."""


def best_step(losses: Losses) -> int | None:
    """The step with the least loss, the first of equal ones; None: nothing was validated."""
    return min(sorted(losses), key=losses.__getitem__, default=None)


def stop_step(losses: Losses, wanted: EarlyStopping) -> int | None:
    """The first step at which training is to end; None: it goes on."""
    best, waited = float("inf"), 0
    for step in sorted(losses):
        if losses[step] < best - wanted.min_change:
            best, waited = losses[step], 0
        else:
            waited += 1
        if waited >= wanted.patience and step >= wanted.min_steps:
            return step
    return None


def early(metrics: Any) -> dict[str, Any] | None:
    """What the metrics of a result or of a seal say of an early end (``step``, ``of``, ``best_step``, ``reason``)."""
    found = metrics.get(EARLY) if isinstance(metrics, dict) else None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def early_text(metrics: Any) -> str:
    """``stopped early at step 40 of 100``; empty for a stage that made all of its steps."""
    found = early(metrics)
    return "" if found is None else f"stopped early at step {found['step']} of {found.get('of')}"
