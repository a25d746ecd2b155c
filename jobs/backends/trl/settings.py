"""Settings of a training stage, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.core.settings import DpoKeys, setting
from jobs.training.interface import versions
from jobs.training.settings import BadSettings, LongRows, LoraKeys, TrainingSettings

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none in typing

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names for learning rate schedules, and those of transformers."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LongRows, LoraKeys, DpoKeys, TrainingSettings):
    """What a training stage can be told.

    ``sft_weight`` (dpo) adds that much of the chosen answers' own loss, as in RPO (Pang et al. 2024,
    https://arxiv.org/abs/2404.19733): DPO alone may widen the margin by making both answers less likely.

    Adapters: ``lora_dora`` splits weights into direction and size (DoRA, https://arxiv.org/abs/2402.09353),
    ``lora_rslora`` divides by the root of the rank (https://arxiv.org/abs/2312.03732), ``lora_base`` keeps the frozen
    weights in 4 bits (QLoRA, https://arxiv.org/abs/2305.14314). ``output``: whole weights, or the adapters alone.
    """

    sft_weight: float = setting(0.0, at_least=0)
    lora_dora: bool = False
    lora_rslora: bool = False
    lora_base: str = setting("whole", choices=("whole", "nf4"))
    output: str = setting("merged", choices=("merged", "adapter"))

    @classmethod
    def read(cls, settings: Mapping[str, Any], kind: str = "sft") -> Self:
        """As for all back ends, for a stage of ``kind``."""
        found = super().read(settings)
        if kind == "dpo" and found.lora_dropout:
            raise BadSettings("lora_dropout: TRL compares preferences without dropout: leave it out")
        return found

    def check(self) -> None:
        super().check()
        self.check_lora()
        if self.lora_rank is None and self.output == "adapter":
            raise BadSettings("output: adapter is for adapters: write lora_rank, too (16, say), or leave it out")
        if self.lora_rank is not None:
            needs("peft", "lora_rank")
        if self.lora_base == "nf4":
            needs("bitsandbytes", "lora_base: nf4")

    def split_batch(self, world: int) -> tuple[int, int]:
        """(examples a process takes in one pass, passes a step) for ``world`` processes.

        Raises:
            BadSettings: the batch does not divide.
        """
        micro = self.micro_of(world, "processes")
        return micro, self.batch_size // world // micro


def needs(package: str, what: str) -> None:
    """Refuse a setting whose package is not in this environment.

    Raises:
        BadSettings: with the line that installs it.
    """
    if package not in versions(package):
        raise BadSettings(f"{what} needs {package}, which is not in this environment: pip install {package}")
