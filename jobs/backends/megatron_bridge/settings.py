"""Settings of a Megatron-Bridge stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.training.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of


@dataclass(frozen=True)
class BridgeSettings(TrainingSettings):
    """What a stage can be told."""

    precision: str = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    sequence_parallel: bool = False

    @classmethod
    def read(cls, settings: dict[str, Any]) -> BridgeSettings:
        """Check and build.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        found = build(cls, settings, required=REQUIRED)
        counts = (
            "steps",
            "batch_size",
            "sequence_length",
            "keep_saves",
            "micro_batch_size",
            "save_every",
            "tensor_parallel",
            "pipeline_parallel",
            "context_parallel",
        )
        at_least_one(found, counts)
        one_of("schedule", found.schedule, ("constant", "linear", "cosine"))
        one_of("precision", found.precision, ("fp32", "bf16"))
        if found.sequence_parallel and found.tensor_parallel < 2:
            raise BadSettings("sequence_parallel needs tensor_parallel of at least 2")
        return found

    def micro(self, world: int) -> int:
        """Sequences that one model replica takes in one pass.

        Raises:
            BadSettings: the batch does not divide.
        """
        size = self.tensor_parallel * self.pipeline_parallel * self.context_parallel
        if world % size:
            raise BadSettings(f"{size} processes for one model do not divide the {world} of the stage")
        return self.micro_of(world // size)
