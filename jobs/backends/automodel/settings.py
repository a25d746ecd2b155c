"""Settings of an AutoModel stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.training.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16")
TOO_LONG = ("error", "skip")


@dataclass(frozen=True)
class AutomodelSettings(TrainingSettings):
    """What a stage can be told. Weights and optimizer are fp32; with ``precision: bf16`` FSDP computes in bf16 and sums
    gradients in fp32.
    """

    too_long: str = "error"
    tensor_parallel: int = 1
    context_parallel: int = 1
    sequence_parallel: bool = False
    recompute: bool = False
    data_workers: int = 0
    wandb_project: str | None = None

    @classmethod
    def read(cls, settings: dict[str, Any]) -> AutomodelSettings:
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
            "threads",
            "tensor_parallel",
            "context_parallel",
        )
        at_least_one(found, counts)
        for name in ("warmup_steps", "weight_decay", "data_workers"):
            if getattr(found, name) < 0:
                raise BadSettings(f"{name} must not be negative, it is {getattr(found, name)}")
        if found.lr <= 0 or found.max_grad_norm <= 0:
            raise BadSettings(f"lr and max_grad_norm must be above 0, not {found.lr} and {found.max_grad_norm}")
        one_of("schedule", found.schedule, SCHEDULES)
        one_of("precision", found.precision, PRECISIONS)
        one_of("too_long", found.too_long, TOO_LONG)
        if found.sequence_parallel and found.tensor_parallel < 2:
            raise BadSettings("sequence_parallel needs tensor_parallel of at least 2")
        return found

    def micro(self, world: int) -> int:
        """Sequences that one model replica takes in one pass.

        Raises:
            BadSettings: the batch does not divide, or bf16 over a single process.
        """
        if self.precision == "bf16" and world == 1:  # seen: to the last bit the losses of fp32
            raise BadSettings(
                "precision: bf16 is a part of AutoModel's sharding, and over a single process it shards nothing and "
                "trains in fp32: write precision: fp32, or give the stage more processes"
            )
        size = self.tensor_parallel * self.context_parallel
        if world % size:
            raise BadSettings(f"tensor_parallel x context_parallel = {size} does not divide {world} processes")
        return self.micro_of(world // size)
