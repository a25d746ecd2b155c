"""Settings of a NeMo-RL stage, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.settings import BadSettings, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
TEMPLATES = ("plain", "default")


@dataclass(frozen=True)
class DpoSettings:
    """What a stage can be told. ``batch_size`` counts pairs over all processes; ``save_every`` None: at the end only.

    ``chat_template``: ``plain`` trains prompt and answer as they stand, as our other back ends and the evaluation do;
    ``default`` puts them through the tokenizer's chat template. ``workers``: ``own`` lets NeMo-RL choose the
    environment of its workers (by uv or prefetched, as in its container), ``same`` uses the stage's environment.
    """

    steps: int
    lr: float
    batch_size: int
    sequence_length: int
    micro_batch_size: int | None = None
    beta: float = 0.1
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
        found = build(cls, settings, required=("steps", "lr", "batch_size", "sequence_length"))
        for name in ("steps", "batch_size", "sequence_length", "keep_saves", "tensor_parallel", "context_parallel"):
            if getattr(found, name) < 1:
                raise BadSettings(f"{name} must be at least 1, not {getattr(found, name)}")
        for name in ("micro_batch_size", "save_every"):
            value = getattr(found, name)
            if value is not None and value < 1:
                raise BadSettings(f"{name} must be at least 1 or null, not {value}")
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
        replicas = world // size
        if self.batch_size % replicas:
            raise BadSettings(f"batch_size {self.batch_size} does not divide over {replicas} model replicas")
        share = self.batch_size // replicas
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise BadSettings(f"micro_batch_size {micro} does not divide {share}, the share of each model replica")
        return micro
