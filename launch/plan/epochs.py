"""Steps of stages that say epochs, where the rows of their data are known already.

The job counts them itself, from the rows that it trains on; here they are for ``plan`` alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

from jobs.core import seal
from jobs.core.epochs import steps_of
from jobs.core.paths import Workspace
from jobs.core.seal import SealBroken
from launch.plan.model import Plan, PlannedStage


def with_steps(plan: Plan, workspace: Workspace) -> Plan:
    """``plan`` with the steps that are known; it is for showing, not for submitting."""
    return replace(plan, stages=tuple(_counted(plan, stage, workspace) for stage in plan.stages))


def notes(plan: Plan, workspace: Workspace) -> list[str]:
    """A line for each stage that says epochs, or that may stop early."""
    found = []
    for stage in plan.stages:
        if stage.settings.get("early_stopping"):
            found.append(f"stage {stage.name}: may stop early; its steps and its time are the most that it takes")
        if stage.target_step is not None or not stage.trains:
            continue
        epochs, batch = stage.settings["epochs"], stage.settings["batch_size"]
        rows = rows_of(plan, stage, workspace)
        text = f"stage {stage.name}: epochs {epochs:g}"
        if rows is None:
            found.append(f"{text}; its steps are counted when it starts")
        else:
            steps = steps_of(rows, batch, epochs)
            extra = steps * batch - math.floor(epochs * rows)
            found.append(
                f"{text} of {rows:,} rows, batch_size {batch}: {steps:,} steps"
                + (f", the last of which takes {extra} rows of one more epoch" if extra > 0 else "")
            )
    return found


def rows_of(plan: Plan, stage: PlannedStage, workspace: Workspace) -> int | None:
    """Rows that a stage trains on, by the seal of its data; None: not made yet, or a corpus, which is cut up."""
    data = stage.inputs.get("data")
    if data is None or stage.kind == "cpt":
        return None
    try:
        made = seal.load(data.store(workspace).seal)
    except (OSError, ValueError, SealBroken):
        return None
    rows = made.metrics.get(stage.settings.get("split", "train"))
    return rows if isinstance(rows, int) and rows > 0 else None


def _counted(plan: Plan, stage: PlannedStage, workspace: Workspace) -> PlannedStage:
    if stage.target_step is not None or not stage.trains:
        return stage
    rows = rows_of(plan, stage, workspace)
    if rows is None:
        return stage
    return replace(stage, target_step=steps_of(rows, stage.settings["batch_size"], stage.settings["epochs"]))
