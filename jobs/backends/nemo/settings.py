"""Settings of a NeMo stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.settings import BadSettings, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16")
RECOMPUTE = ("none", "selective", "full")
TOO_LONG = ("error", "skip")


@dataclass(frozen=True)
class NemoSettings:
    """What a NeMo stage can be told; the first block is shared by all training back ends.

    ``batch_size`` is the number of sequences a step takes over all processes together. ``recipe``: name of a recipe of
    the installed NeMo (``llama32_1b``) whose parallelism is used where none is given here, and whose architecture must
    be that of the checkpoint. ``distributed_optimizer`` None: on where it can be saved (with transformer_engine or
    apex). ``prompt_template`` wraps the prompt of each row; it must have ``{prompt}`` in it once.
    """

    steps: int
    lr: float
    batch_size: int
    sequence_length: int
    micro_batch_size: int | None = None
    warmup_steps: int = 0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int | None = None
    keep_saves: int = 2
    precision: str = "fp32"
    threads: int | None = None

    split: str = "train"
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
        found = build(cls, settings, required=("steps", "lr", "batch_size", "sequence_length"))
        found._check()
        return found

    def _check(self) -> None:
        counts = ("steps", "batch_size", "sequence_length", "keep_saves", "micro_batch_size", "save_every", "threads",
                  "tensor_parallel", "pipeline_parallel", "context_parallel")  # fmt: skip
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSettings(f"{name} must be at least 1, not {value}")
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

    def split_batch(self, replicas: int) -> int:
        """Sequences that one model replica takes in one pass; ``replicas`` is the data-parallel size.

        Raises:
            BadSettings: the batch does not divide.
        """
        if self.batch_size % replicas:
            raise BadSettings(f"batch_size {self.batch_size} does not divide over {replicas} model replicas")
        share = self.batch_size // replicas
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise BadSettings(
                f"micro_batch_size {micro} does not divide {share}, the share of batch_size {self.batch_size} "
                f"of each of {replicas} model replicas"
            )
        return micro


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
