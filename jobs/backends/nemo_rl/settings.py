"""Settings of a NeMo-RL stage, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jobs.core.settings import DpoKeys, setting
from jobs.training.settings import BadSettings, LongRows, ParallelSettings

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
"""Our names for precisions, and those of NeMo-RL."""


@dataclass(frozen=True, kw_only=True)
class RlSettings(ParallelSettings):
    """What every stage can be told. ``batch_size`` counts rows over all processes; ``save_every`` None: at the end.

    ``chat_template``: ``plain`` trains prompt and answer as they stand, as our other back ends and the evaluation do;
    ``default`` puts them through the tokenizer's chat template. ``workers``: ``own`` lets NeMo-RL choose the
    environment of its workers (by uv or prefetched, as in its container), ``same`` uses the stage's environment.
    """

    KIND: ClassVar[str] = ""
    ROWS: ClassVar[str] = ""

    NO_VALIDATION: ClassVar[str] = "the validations of NeMo-RL's own loop are not read here, and none can end it"

    chat_template: str = setting("plain", choices=("plain", "default"))
    recompute: bool = False
    cpu_offload: bool = False
    workers: str = setting("same", choices=("own", "same"))
    ray_seconds: int = setting(300, at_least=1)

    def check(self) -> None:
        super().check()
        if self.threads is not None:
            raise BadSettings("threads: the processes are started by Ray, which sets theirs: leave it out")


@dataclass(frozen=True, kw_only=True)
class DpoSettings(DpoKeys, RlSettings):
    """A stage of preferences."""

    KIND: ClassVar[str] = "dpo"
    ROWS: ClassVar[str] = "preferences"


@dataclass(frozen=True, kw_only=True)
class SftSettings(LongRows, RlSettings):
    """A stage of instructions. NeMo-RL itself would keep rows that are too long and give them no weight."""

    KIND: ClassVar[str] = "sft"
    ROWS: ClassVar[str] = "instructions"


KINDS: dict[str, type[RlSettings]] = {each.KIND: each for each in (DpoSettings, SftSettings)}


def read(kind: str, settings: dict[str, Any]) -> RlSettings:
    """The settings of a stage of a kind, checked.

    Raises:
        BadSettings: naming the setting, its value and what would fit.
    """
    return KINDS[kind].read(settings)
