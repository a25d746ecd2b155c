"""Settings of a NeMo stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16")
RECOMPUTE = ("none", "selective", "full")
TOO_LONG = ("error", "skip")


@dataclass(frozen=True)
class NemoSettings(TrainingSettings):
    """What a NeMo stage can be told. ``recipe``: name of a recipe of
    the installed NeMo (``llama32_1b``) whose parallelism is used where none is given here, and whose architecture must
    be that of the checkpoint. ``distributed_optimizer`` None: on where it can be saved (with transformer_engine or
    apex). ``prompt_template`` wraps the prompt of each row; it must have ``{prompt}`` in it once.
    """

    too_long: str = "error"
    min_lr: float = 0.0
    recipe: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    context_parallel: int | None = None
    sequence_parallel: bool = False
    recompute: str = "none"
    distributed_optimizer: bool | None = None
    prompt_template: str = "{prompt}"
    data_workers: int = 0
    tensorboard: bool = False
    wandb_project: str | None = None

    @classmethod
    def read(cls, settings: dict[str, Any]) -> NemoSettings:
        """Check and build.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        found = build(cls, settings, required=REQUIRED)
        found._check()
        return found

    def _check(self) -> None:
        counts = ("steps", "batch_size", "sequence_length", "keep_saves", "micro_batch_size", "save_every", "threads",
                  "tensor_parallel", "pipeline_parallel", "context_parallel")  # fmt: skip
        at_least_one(self, counts)
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "min_lr", "data_workers"):
            if getattr(self, name) < 0:
                raise BadSettings(f"{name} must not be negative, it is {getattr(self, name)}")
        if self.lr <= 0:
            raise BadSettings(f"lr must be above 0, not {self.lr}")
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("precision", self.precision, PRECISIONS)
        one_of("recompute", self.recompute, RECOMPUTE)
        one_of("too_long", self.too_long, TOO_LONG)
        if self.prompt_template.count("{prompt}") != 1:
            raise BadSettings(f"prompt_template must have {{prompt}} in it once: {self.prompt_template!r}")
        if self.sequence_parallel and (self.tensor_parallel or 1) < 2:
            raise BadSettings("sequence_parallel needs tensor_parallel of at least 2")


def learning_rate_factor(step: int, settings: NemoSettings) -> float:
    """Learning rate of ``step`` (from 0) over ``lr``: warm-up from 0, then the schedule down to ``min_lr``.

    The same curves as transformers' ``get_scheduler``, so a stage learns alike under both back ends.
    """
    import math

    if step < settings.warmup_steps:
        return step / max(1, settings.warmup_steps)
    if settings.schedule == "constant":
        return 1.0
    done = min(1.0, (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps))
    floor = settings.min_lr / settings.lr
    height = 1.0 - done if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return floor + (1.0 - floor) * height
