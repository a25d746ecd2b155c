"""Settings of a training stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from jobs.settings import BadSettings, typed, unknown

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names for learning rate schedules, and those of transformers."""

PRECISIONS = ("fp32", "bf16")
TOO_LONG = ("error", "skip")


@dataclass(frozen=True)
class TrainSettings:
    """What a training stage can be told.

    ``steps`` are optimizer steps and ``batch_size`` is the number of examples a step takes over all processes together,
    so a stage learns the same on one node as on four. ``micro_batch_size`` is what one process takes in one pass;
    the rest is accumulated. ``save_every`` None: save only when told to stop.
    ``sft_weight`` (dpo) adds that much of the chosen answers' own loss, as in RPO (Pang et al. 2024,
    https://arxiv.org/abs/2404.19733): DPO alone may widen the margin by making both answers less likely.
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
    beta: float = 0.1
    sft_weight: float = 0.0
    seed: int = 0
    save_every: int | None = None
    keep_saves: int = 2
    precision: str = "fp32"
    threads: int | None = None
    split: str = "train"
    too_long: str = "error"

    @classmethod
    def read(cls, settings: dict[str, Any]) -> TrainSettings:
        """Check and build.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        known = {field.name: str(field.type) for field in fields(cls)}
        unknown(settings, known)
        for name in ("steps", "lr", "batch_size", "sequence_length"):
            if settings.get(name) is None:
                raise BadSettings(f"setting {name!r} is missing")
        values = {name: typed(name, value, known[name]) for name, value in settings.items()}
        found = cls(**values)
        found._check()
        return found

    def _check(self) -> None:
        for name in ("steps", "batch_size", "sequence_length", "keep_saves"):
            if getattr(self, name) < 1:
                raise BadSettings(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("micro_batch_size", "save_every", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSettings(f"{name} must be at least 1 or null, not {value}")
        if self.sft_weight < 0:
            raise BadSettings(f"sft_weight must not be below 0, but is {self.sft_weight}")
        if self.lr <= 0 or self.beta <= 0:
            raise BadSettings(f"lr and beta must be above 0, not {self.lr} and {self.beta}")
        for name, allowed in (("schedule", tuple(SCHEDULES)), ("precision", PRECISIONS), ("too_long", TOO_LONG)):
            if getattr(self, name) not in allowed:
                raise BadSettings(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")

    def split_batch(self, world: int) -> tuple[int, int]:
        """(examples a process takes in one pass, passes a step) for ``world`` processes.

        Raises:
            BadSettings: the batch does not divide.
        """
        if self.batch_size % world:
            raise BadSettings(f"batch_size {self.batch_size} does not divide over {world} processes")
        share = self.batch_size // world
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise BadSettings(
                f"micro_batch_size {micro} does not divide {share}, the share of batch_size {self.batch_size} "
                f"of each of {world} processes"
            )
        return micro, share // micro

