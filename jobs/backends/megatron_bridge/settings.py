"""Settings of a Megatron-Bridge stage, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jobs.core.settings import setting
from jobs.training.settings import BadSettings, ParallelSettings


@dataclass(frozen=True, kw_only=True)
class BridgeSettings(ParallelSettings):
    """What a stage can be told."""

    SPLITS: ClassVar[tuple[str, ...]] = ("tensor_parallel", "pipeline_parallel", "context_parallel")

    NO_VALIDATION: ClassVar[str] = "the validations of Megatron-Bridge's own loop are not read here"

    pipeline_parallel: int = setting(1, at_least=1)

    def check(self) -> None:
        super().check()
        if self.epochs is not None:
            raise BadSettings("epochs: its rows are counted by Megatron-Bridge alone: write steps")
