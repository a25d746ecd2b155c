"""Settings of an AutoModel stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jobs.core.settings import setting
from jobs.training.settings import BadSettings, KeptLoraKeys, LongRows, ParallelSettings


@dataclass(frozen=True, kw_only=True)
class AutomodelSettings(LongRows, KeptLoraKeys, ParallelSettings):
    """What a stage can be told. Weights and optimizer are fp32; with ``precision: bf16`` FSDP computes in bf16 and sums
    gradients in fp32.
    """

    NO_VALIDATION: ClassVar[str] = ""

    recompute: bool = False
    data_workers: int = setting(0, at_least=0)

    def check(self) -> None:
        super().check()
        self.check_lora()

    def micro(self, world: int) -> int:
        """As for all back ends.

        Raises:
            BadSettings: the batch does not divide, or bf16 over a single process.
        """
        if self.precision == "bf16" and world == 1:  # seen: to the last bit the losses of fp32
            raise BadSettings(
                "precision: bf16 is a part of AutoModel's sharding, and over a single process it shards nothing and "
                "trains in fp32: write precision: fp32, or give the stage more processes"
            )
        return super().micro(world)
