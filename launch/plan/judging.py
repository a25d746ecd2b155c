"""How many questions the judges of a plan get, and what they cost at most, before any is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.core.paths import Workspace
from launch.base.text import table
from launch.plan.examples import examples_of, known_pairs
from launch.plan.model import Plan, PlannedStage

if TYPE_CHECKING:
    from launch.config.pipeline import Pipeline

TOKENS_OF_A_PROMPT = 200
"""Assumed, as its rows are not read here."""

CHARACTERS_OF_A_TOKEN = 4
FORM_TOKENS = 120
"""Of what stands around the texts of a question."""


@dataclass(frozen=True)
class JudgeCost:
    """The questions to a judge for one task, at the most: what was asked before costs nothing. ``questions``: None: the
    data is not made yet. ``cost``: in the unit of its ``price``; None: it has none."""

    stage: str
    task: str
    judge: str
    form: str
    questions: int | None
    cost: float | None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return dict(vars(self))


def costs(plan: Plan, pipeline: Pipeline, workspace: Workspace) -> list[JudgeCost]:
    """Of every task that is judged."""
    return [
        _cost(plan, stage, task, keys, pipeline, workspace)
        for stage in plan.stages
        for task, keys in stage.settings.get("tasks", {}).items()
        if keys.get("judged_by") and keys.get("judge") in pipeline.judges
    ]


def _cost(
    plan: Plan, stage: PlannedStage, task: str, keys: dict[str, Any], pipeline: Pipeline, workspace: Workspace
) -> JudgeCost:
    told, judge = keys["judged_by"], pipeline.judges[keys["judge"]]
    examples, known = examples_of(stage, task, workspace), known_pairs(stage, told, workspace)
    models = _models(plan, stage)
    questions = None
    if examples is not None and known is not None and models is not None:
        questions = models * examples * (2 if judge.form == "pairwise" else 1) + 2 * known
    cost = None
    if questions is not None and judge.price is not None:
        answers = (2 if judge.form == "pairwise" else 1) * int(keys.get("max_new_tokens", 64))
        read = len(told.get("rubric", "")) // CHARACTERS_OF_A_TOKEN + FORM_TOKENS + TOKENS_OF_A_PROMPT + answers
        cost = questions * (read * judge.price.input + judge.max_new_tokens * judge.price.output) / 1e6
    return JudgeCost(stage.name, task, keys["judge"], judge.form, questions, cost)


def _models(plan: Plan, stage: PlannedStage) -> int | None:
    """Of how many models the answers are judged, at the most; None: it depends on epochs that are not counted yet."""
    if "curve" not in stage.settings or "choose" in stage.settings:  # a choice measures the chosen one again
        return 1
    steps = plan.stage(stage.inputs["checkpoint"].stage).target_step
    at_start = "compare_to" not in stage.inputs
    return None if steps is None else math.ceil(steps / stage.settings["curve"]["every"]) + at_start


def show(found: list[JudgeCost]) -> str:
    """The table, and under it what was assumed."""
    rows = [
        [one.judge, one.stage, one.task, one.form, "known once its data is made" if one.questions is None
         else f"{one.questions:,}", "" if one.cost is None else f"{one.cost:,.4g}"]
        for one in found
    ]  # fmt: skip
    text = "\n".join(table(("judge", "stage", "task", "form", "questions", "cost"), rows, right=(4, 5)))
    if any(one.cost is not None for one in found):
        text += (
            f"\nat the most; assumed: {TOKENS_OF_A_PROMPT} tokens a prompt, answers as long as max_new_tokens allows"
        )
    return text
