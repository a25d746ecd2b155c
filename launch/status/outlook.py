"""What is known of a plan before anything is submitted: states, estimates, what gates can decide, notes, limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launch.base.errors import InputError
from launch.config import ranges
from launch.plan import epochs, estimates, evaluating, limits
from launch.plan.estimates import Estimate
from launch.plan.evaluating import EvaluationMemory
from launch.plan.model import Plan, Planned
from launch.status import plan as status_plan

if TYPE_CHECKING:
    from launch.plan.judging import JudgeCost
    from launch.plan.power import GatePower

RUNS_ASKED = 5
"""Newest runs whose evaluations tell how metrics vary."""


@dataclass(frozen=True)
class Outlook:
    """``shown``: the plan, with the steps that epochs come to where their data is there; ``states`` and ``expected``
    (seconds, from earlier runs) by stage."""

    planned: Planned
    shown: Plan
    states: Mapping[str, str]
    expected: Mapping[str, float | None]
    estimates: tuple[Estimate, ...]
    evaluations: tuple[EvaluationMemory, ...]
    gates: tuple[GatePower, ...]
    judges: tuple[JudgeCost, ...]
    notes: tuple[str, ...]

    def refuse(self) -> None:
        """Raises InputError: a submission of it would be refused; every line to change."""
        one = self.planned
        limits.refuse(one.plan, one.profile, one.pipeline)
        estimates.refuse(self.shown, one.profile.profile, one.workspace, self.estimates)
        evaluating.refuse(self.evaluations, self.shown)


def of(planned: Planned) -> Outlook:
    """From files alone: no Slurm command is started."""
    plan, profile, workspace = planned.plan, planned.profile.profile, planned.workspace
    shown = epochs.with_steps(plan, workspace)
    found = estimates.estimates(shown, profile, workspace)
    notes = epochs.notes(plan, workspace)
    notes += ranges.notes(planned.pipeline) + limits.notes(plan, planned.profile, planned.pipeline)
    tried = sorted({(stage.backend, stage.experimental) for stage in plan.stages})
    notes += estimates.of_kept_saves(plan, found)
    notes += [f"back end {backend} is experimental: {untried}" for backend, untried in tried if untried]
    return Outlook(
        planned,
        shown,
        status_plan.states(plan, workspace),
        status_plan.expected(shown, workspace),
        tuple(found),
        tuple(evaluating.needs(shown, profile, workspace)),
        tuple(_gates(planned)),
        tuple(_judged(planned)),
        tuple(notes),
    )


def _gates(planned: Planned) -> list[GatePower]:
    """What the gates can decide; of how metrics vary the last runs of this pipeline tell."""
    if not any(stage.settings.get("gate") for stage in planned.plan.stages):
        return []
    from launch.plan import power
    from launch.runs import rundir

    def plans() -> Iterator[Plan]:
        runs = [run for run in rundir.all_runs(planned.workspace.root) if run.workspace == planned.workspace]
        for run in runs[:RUNS_ASKED]:
            with contextlib.suppress(InputError, OSError, ValueError):  # a damaged run says nothing here
                if (plan := run.plan()).pipeline == planned.plan.pipeline:
                    yield plan

    return power.powers(planned.plan, planned.workspace, power.deviations(plans(), planned.workspace))


def _judged(planned: Planned) -> list[JudgeCost]:
    """What judges are asked."""
    if not planned.pipeline.pipeline.judges:
        return []
    from launch.plan import judging

    return judging.costs(planned.plan, planned.pipeline.pipeline, planned.workspace)


def lines(outlook: Outlook, fetch_command: str) -> list[str]:
    """For people."""
    planned = outlook.planned
    shown = status_plan.lines(
        outlook.shown, planned.profile.profile, planned.workspace, outlook.states, outlook.expected, fetch_command
    )
    if outlook.estimates:
        shown += ["", estimates.show(list(outlook.estimates))]
    if outlook.evaluations:
        shown += ["", evaluating.show(outlook.evaluations)]
    if outlook.gates:
        from launch.plan import power

        shown += ["", power.show(list(outlook.gates))]
    if outlook.judges:
        from launch.plan import judging

        shown += ["", judging.show(list(outlook.judges))]
    return [*shown, *(f"  {note}" for note in outlook.notes)]
