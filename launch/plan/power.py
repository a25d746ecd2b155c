"""What the gates of a plan can decide: the smallest change that the examples of each show, before the night is spent.

A gate is judged on an interval, whose width follows from how many examples there are and how much they differ. The
second is known from an earlier evaluation of the same metric in the workspace; of a share of examples (accuracy, exact
match) it is assumed where there is none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.core import power, results
from jobs.core.paths import Workspace
from jobs.core.tasks import kind_of
from launch.base.text import table
from launch.config.kinds import measured
from launch.plan.examples import examples_of
from launch.plan.model import Plan, PlannedStage

CHANGED = 0.15
"""Share of answers that a night changes, where nothing is known. Assumed."""


@dataclass(frozen=True)
class GatePower:
    """A gate before it is judged. ``examples``: None: its data is not made yet. ``decides``: the smallest distance from
    its threshold that so many show; None: nothing is known of how the metric varies. ``needs``: how many would show
    what the rule allows; None: enough are there, or the rule allows nothing."""

    stage: str
    gate: str
    rule: str
    examples: int | None
    decides: float | None
    assumed: bool
    needs: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return dict(vars(self))


def powers(plan: Plan, workspace: Workspace, earlier: Mapping[str, Mapping[str, float]]) -> list[GatePower]:
    """All gates of a plan. ``earlier``: ``task.metric`` -> deviation of its ``change`` and ``value``, as evaluations of
    this workspace measured them."""
    return [
        _power(plan, stage, name, rule, workspace, earlier)
        for stage in plan.stages
        for name, rule in stage.settings.get("gate", {}).items()
    ]


def _power(
    plan: Plan,
    stage: PlannedStage,
    name: str,
    rule: Mapping[str, Any],
    workspace: Workspace,
    earlier: Mapping[str, Mapping[str, float]],
) -> GatePower:
    own = name.rpartition(".")  # of a back end of the user
    task, metric = measured(stage.settings["tasks"]).get(name, (own[0], own[2]))
    examples = examples_of(stage, task, workspace, metric)
    absolute = "at_least" in rule or "at_most" in rule
    deviation = earlier.get(f"{task}.{metric}", {}).get("value" if absolute else "change")
    told = stage.settings["tasks"].get(task, {})
    kind = kind_of(task, told)
    facts = None if kind is None else kind.metrics_of(told).get(metric)
    share = (facts is not None and facts.share) or (kind is not None and kind.name == "harness")
    assumed = deviation is None and share
    if assumed:
        bound = float(rule.get("at_least", rule.get("at_most", 0.0)))
        deviation = math.sqrt(bound * (1 - bound)) if absolute and 0 < bound < 1 else math.sqrt(CHANGED)
    decides = None if deviation is None or not examples else power.decides(deviation, examples)
    allowed = rule.get("may_fall", rule.get("may_rise"))
    needs = None
    if decides is not None and deviation is not None and isinstance(allowed, int | float) and 0 < allowed < decides:
        needs = math.ceil(power.needed(deviation, allowed))
    demand = next(key for key in rule if key != "tier")
    said = f"{demand} {rule[demand]}"
    return GatePower(stage.name, f"{task}.{metric}", said, examples, decides, assumed, needs)


def deviations(plans: Iterator[Plan], workspace: Workspace) -> dict[str, dict[str, float]]:
    """``earlier`` of ``powers``: of the evaluations of ``plans``, newest first."""
    found: dict[str, dict[str, float]] = {}
    for plan in plans:
        for stage in plan.stages:
            store = stage.store(workspace)
            path = results.find(store.output) if stage.produces_kind == "evaluation" and store.seal.exists() else None
            if path is None:
                continue
            # A file that is damaged says nothing here; the stage that builds on it names it.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                for task, known in results.read(path).items():
                    for metric, entry in known["metrics"].items():
                        _keep(found.setdefault(f"{task}.{metric}", {}), entry)
    return found


def _keep(known: dict[str, float], entry: Mapping[str, Any]) -> None:
    for name, value in (("value", entry), ("change", entry.get("change") or {})):
        deviation, groups, n = value.get("deviation"), value.get("groups"), value.get("n")
        # Without a difference between the examples nothing is known of how the metric varies: 0 of 60 is not always 0.
        if isinstance(deviation, int | float) and deviation > 0 and groups and n:
            # Per example: examples of a group say less than as many apart.
            known.setdefault(name, float(deviation) * math.sqrt(n / groups))


def show(found: list[GatePower]) -> str:
    """The table, and under it what was assumed."""
    rows = [
        [one.stage, one.gate, one.rule, "" if one.examples is None else f"{one.examples:,}", _decides(one), _said(one)]
        for one in found
    ]
    text = "\n".join(table(("stage", "gate", "rule", "examples", "decides", ""), rows, right=(3, 4)))
    if any(one.assumed and one.decides is not None for one in found):
        text += f"\n* assumed: {CHANGED:.0%} of the answers change; an evaluation in this workspace will tell"
    return text


def _decides(one: GatePower) -> str:
    return "" if one.decides is None else f"{one.decides:.2g}{'*' if one.assumed else ''}"


def _said(one: GatePower) -> str:
    if one.needs is not None:
        return f"TOO FEW: {one.needs:,} examples would do, or a rule that allows {one.decides:.2g}"
    if one.examples is None:
        return "known once its data is made"
    return "" if one.decides is not None else "known after a first evaluation"
