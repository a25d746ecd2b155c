"""What the models of an evaluation take on its device: the one that is measured, a reference, and judges beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.core.batches import BATCH_PROMPTS, BATCH_TOKENS, LOGIT_ROWS
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.base.text import gib, table
from launch.config.kinds import JUDGE
from launch.config.profile import Profile
from launch.plan import estimates
from launch.plan.memory import RESERVE, Model
from launch.plan.model import Plan, PlannedStage

BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class EvaluationMemory:
    """Bytes on each GPU. ``models``: what each is there for -> its weights; ``unknown``: those whose size is not known
    yet; ``batch``: what goes through one of them at once. ``memory_limit``: of one GPU; None: the profile does not say
    it."""

    stage: str
    models: Mapping[str, float]
    unknown: tuple[str, ...]
    batch: float
    memory_limit: int | None

    @property
    def total(self) -> float:
        """With the reserve of an estimate; of what is unknown nothing."""
        return sum(self.models.values()) + self.batch + RESERVE

    @property
    def fits(self) -> bool:
        return self.memory_limit is None or self.total <= self.memory_limit

    def as_json(self) -> dict[str, Any]:
        """For ``overnight plan --json``."""
        return {**asdict(self), "total": self.total, "fits": self.fits}


def needs(plan: Plan, profile: Profile, workspace: Workspace) -> list[EvaluationMemory]:
    """Of every stage that measures a model whose size is known, or has one judge beside it."""
    found = (_needs(plan, stage, profile, workspace) for stage in plan.stages if stage.kind == "evaluate")
    return [one for one in found if one.models]


def _needs(plan: Plan, stage: PlannedStage, profile: Profile, workspace: Workspace) -> EvaluationMemory:
    size = BYTES.get(str(stage.settings.get("precision", "fp32")), 4)
    models: dict[str, float] = {}
    unknown, batch = [], 0.0
    for what, role in _roles(stage):
        model = estimates.behind(plan, stage.inputs[role], workspace)
        if model is None:
            unknown.append(what)
            continue
        models[what] = float(model.parameters * size)
        batch = max(batch, _batch(model, stage.settings, size))
    limit, _, _ = estimates.gpu_of(stage.resources, profile)
    return EvaluationMemory(stage.name, models, tuple(unknown), batch, limit)


def _roles(stage: PlannedStage) -> Iterator[tuple[str, str]]:
    """What a model is there for, and the input that it is. A curve swaps the weights of one model."""
    measured = "source" if "curve" in stage.settings else "checkpoint"
    for role in stage.inputs:
        if role == measured:
            if "command" not in stage.settings:  # a server that the stage starts divides the GPUs by itself
                yield "model", role
        elif role == "reference":
            yield role, role
        elif role.startswith(JUDGE):
            yield f"judge {role.removeprefix(JUDGE)}", role


def _batch(model: Model, settings: Mapping[str, Any], size: int) -> float:
    """Keys and values of answers that are generated at once, what one layer computes with, and logits. Prompts have
    four times as many tokens at once as texts that are scored (``jobs.evaluate.engine``)."""
    tokens = 4 * int(settings.get("batch_tokens") or BATCH_TOKENS)
    answers = [int(task.get("max_new_tokens") or 0) for task in settings.get("tasks", {}).values()]
    tokens += int(settings.get("batch_prompts") or BATCH_PROMPTS) * max(answers, default=0)
    cache = 2 * model.layers * model.keys if any(answers) else 0
    layer = 4 * model.hidden + 2 * model.queries + 3 * model.ffn
    return float(tokens * (cache + layer) * size + LOGIT_ROWS * model.vocabulary * (size + 4))


def refuse(found: Sequence[EvaluationMemory], plan: Plan) -> None:
    """Raises InputError: models that do not fit a GPU together, and what to change."""
    problems = []
    for one in found:
        if one.fits or one.memory_limit is None:
            continue
        stage = plan.stage(one.stage)
        judges = [what for what in one.models if what.startswith("judge ")]
        changes = [] if stage.settings.get("precision") == "bf16" else ["engine: {precision: bf16}"]
        changes += ["a server for the judge (model: {server: URL, name: NAME})"] if judges else []
        problems.append(
            f"stage {one.stage!r} needs about {gib(one.total)} on each GPU, partition {stage.resources.partition!r} "
            f"has {gib(one.memory_limit)} ({parts(one)}); {', or '.join([*changes, 'GPUs with more memory'])}"
        )
    if problems:
        raise InputError("\n".join(problems))


def parts(one: EvaluationMemory) -> str:
    """The models with what they take, the largest first, and the batch."""
    found = sorted(one.models.items(), key=lambda item: -item[1])
    known = [f"{what} {gib(value)}" for what, value in (*found, ("batch", one.batch))]
    return ", ".join([*known, *(f"{what} not known yet" for what in one.unknown)])


def show(found: Sequence[EvaluationMemory]) -> str:
    """The table of ``overnight plan``; empty without estimates."""
    if not found:
        return ""
    rows = [[one.stage, gib(one.total), gib(one.memory_limit) if one.memory_limit else "", parts(one)] for one in found]
    return "\n".join(table(("evaluation", "per GPU", "of", ""), rows, right=(1, 2)))
