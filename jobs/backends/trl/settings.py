"""Settings of a training stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.training.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names for learning rate schedules, and those of transformers."""

PRECISIONS = ("fp32", "bf16")
TOO_LONG = ("error", "skip")


@dataclass(frozen=True)
class TrainSettings(TrainingSettings):
    """What a training stage can be told.

    ``sft_weight`` (dpo) adds that much of the chosen answers' own loss, as in RPO (Pang et al. 2024,
    https://arxiv.org/abs/2404.19733): DPO alone may widen the margin by making both answers less likely.
    """

    beta: float = 0.1
    sft_weight: float = 0.0
    too_long: str = "error"

    @classmethod
    def read(cls, settings: dict[str, Any]) -> TrainSettings:
        """Check and build.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        found = build(cls, settings, required=REQUIRED)
        found._check()
        return found

    def _check(self) -> None:
        at_least_one(self, ("steps", "batch_size", "sequence_length", "keep_saves"))
        at_least_one(self, ("micro_batch_size", "save_every", "threads"), none=" or null")
        if self.sft_weight < 0:
            raise BadSettings(f"sft_weight must not be below 0, but is {self.sft_weight}")
        if self.lr <= 0 or self.beta <= 0:
            raise BadSettings(f"lr and beta must be above 0, not {self.lr} and {self.beta}")
        for name, allowed in (("schedule", tuple(SCHEDULES)), ("precision", PRECISIONS), ("too_long", TOO_LONG)):
            one_of(name, getattr(self, name), allowed)

    def split_batch(self, world: int) -> tuple[int, int]:
        """(examples a process takes in one pass, passes a step) for ``world`` processes.

        Raises:
            BadSettings: the batch does not divide.
        """
        micro = self.micro_of(world, "processes")
        return micro, self.batch_size // world // micro
