"""A stage of a plan by the name that a user typed."""

from __future__ import annotations

from launch.base.errors import InputError
from launch.base.text import suggest
from launch.plan import Plan, PlannedStage


def find(plan: Plan, name: str) -> PlannedStage:
    """The stage of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    try:
        return plan.stage(name)
    except KeyError:
        names = [stage.name for stage in plan.stages]
        raise InputError(f"there is no stage {name!r} in this run; {suggest(name, names)}") from None
