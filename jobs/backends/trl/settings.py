"""Settings of a training stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.core.settings import DpoKeys, setting
from jobs.training.settings import LongRows, TrainingSettings

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names for learning rate schedules, and those of transformers."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LongRows, DpoKeys, TrainingSettings):
    """What a training stage can be told.

    ``sft_weight`` (dpo) adds that much of the chosen answers' own loss, as in RPO (Pang et al. 2024,
    https://arxiv.org/abs/2404.19733): DPO alone may widen the margin by making both answers less likely.
    """

    sft_weight: float = setting(0.0, at_least=0)

    def split_batch(self, world: int) -> tuple[int, int]:
        """(examples a process takes in one pass, passes a step) for ``world`` processes.

        Raises:
            BadSettings: the batch does not divide.
        """
        micro = self.micro_of(world, "processes")
        return micro, self.batch_size // world // micro
