"""Settings of a NeMo-RL stage, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
TEMPLATES = ("plain", "default")


@dataclass(frozen=True)
class DpoSettings(TrainingSettings):
    """What a stage can be told. ``batch_size`` counts pairs over all processes; ``save_every`` None: at the end only.

    ``chat_template``: ``plain`` trains prompt and answer as they stand, as our other back ends and the evaluation do;
    ``default`` puts them through the tokenizer's chat template. ``workers``: ``own`` lets NeMo-RL choose the
    environment of its workers (by uv or prefetched, as in its container), ``same`` uses the stage's environment.
    """

    beta: float = 0.1
    chat_template: str = "plain"
    tensor_parallel: int = 1
    context_parallel: int = 1
    sequence_parallel: bool = False
    recompute: bool = False
    cpu_offload: bool = False
    workers: str = "same"
    tensorboard: bool = False
    wandb_project: str | None = None
    ray_seconds: int = 300

    @classmethod
    def read(cls, settings: dict[str, Any]) -> DpoSettings:
        """Check and build.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        found = build(cls, settings, required=REQUIRED)
        counts = ("steps", "batch_size", "sequence_length", "keep_saves", "tensor_parallel", "context_parallel")
        at_least_one(found, counts)
        at_least_one(found, ("micro_batch_size", "save_every"), none=" or null")
        if found.lr <= 0 or found.beta <= 0:
            raise BadSettings(f"lr and beta must be above 0, not {found.lr} and {found.beta}")
        one_of("schedule", found.schedule, SCHEDULES)
        one_of("precision", found.precision, tuple(PRECISIONS))
        one_of("chat_template", found.chat_template, TEMPLATES)
        one_of("workers", found.workers, ("own", "same"))
        return found

    def micro(self, world: int) -> int:
        """Pairs that one model replica takes in one pass.

        Raises:
            BadSettings: the batch does not divide.
        """
        size = self.tensor_parallel * self.context_parallel
        if world % size:
            raise BadSettings(f"tensor_parallel x context_parallel = {size} does not divide {world} GPUs")
        return self.micro_of(world // size)
