"""Settings of a Megatron-Bridge stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.settings import BadSettings, build, one_of


@dataclass(frozen=True)
class BridgeSettings:
    """What a stage can be told; the first block is shared by all training back ends.

    ``batch_size`` is the number of sequences a step takes over all processes together.
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
    precision: str = "bf16"
    threads: int | None = None

    split: str = "train"
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
        found = build(cls, settings, required=("steps", "lr", "batch_size", "sequence_length"))
        counts = ("steps", "batch_size", "sequence_length", "keep_saves", "micro_batch_size", "save_every",
                  "tensor_parallel", "pipeline_parallel", "context_parallel")  # fmt: skip
        for name in counts:
            value = getattr(found, name)
            if value is not None and value < 1:
                raise BadSettings(f"{name} must be at least 1, not {value}")
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
        replicas = world // size
        if self.batch_size % replicas:
            raise BadSettings(f"batch_size {self.batch_size} does not divide over {replicas} model replicas")
        share = self.batch_size // replicas
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise BadSettings(f"micro_batch_size {micro} does not divide {share}, the share of each model replica")
        return micro
