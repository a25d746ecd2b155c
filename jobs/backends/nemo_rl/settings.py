"""Settings of a NeMo-RL stage, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jobs.training.settings import REQUIRED, BadSettings, TrainingSettings, at_least_one, build, one_of

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
TEMPLATES = ("plain", "default")


@dataclass(frozen=True)
class RlSettings(TrainingSettings):
    """What every stage can be told. ``batch_size`` counts rows over all processes; ``save_every`` None: at the end.

    ``chat_template``: ``plain`` trains prompt and answer as they stand, as our other back ends and the evaluation do;
    ``default`` puts them through the tokenizer's chat template. ``workers``: ``own`` lets NeMo-RL choose the
    environment of its workers (by uv or prefetched, as in its container), ``same`` uses the stage's environment.
    """

    KIND: ClassVar[str] = ""
    ROWS: ClassVar[str] = ""

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

    def checked(self) -> None:
        """Refuse values that cannot be.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        counts = ("steps", "batch_size", "sequence_length", "keep_saves", "tensor_parallel", "context_parallel")
        at_least_one(self, counts)
        at_least_one(self, ("micro_batch_size", "save_every"), none=" or null")
        if self.lr <= 0:
            raise BadSettings(f"lr must be above 0, not {self.lr}")
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("precision", self.precision, tuple(PRECISIONS))
        one_of("chat_template", self.chat_template, TEMPLATES)
        one_of("workers", self.workers, ("own", "same"))

    def micro(self, world: int) -> int:
        """Rows that one model replica takes in one pass.

        Raises:
            BadSettings: the batch does not divide.
        """
        size = self.tensor_parallel * self.context_parallel
        if world % size:
            raise BadSettings(f"tensor_parallel x context_parallel = {size} does not divide {world} GPUs")
        return self.micro_of(world // size)


@dataclass(frozen=True)
class DpoSettings(RlSettings):
    """A stage of preferences; ``beta`` weighs how far the model may go from where it started."""

    KIND: ClassVar[str] = "dpo"
    ROWS: ClassVar[str] = "preferences"

    beta: float = 0.1

    def checked(self) -> None:
        super().checked()
        if self.beta <= 0:
            raise BadSettings(f"beta must be above 0, not {self.beta}")


@dataclass(frozen=True)
class SftSettings(RlSettings):
    """A stage of instructions. ``too_long``: ``error``, or ``skip`` leaves longer rows out; NeMo-RL itself would keep
    them and give them no weight."""

    KIND: ClassVar[str] = "sft"
    ROWS: ClassVar[str] = "instructions"

    too_long: str = "error"

    def checked(self) -> None:
        super().checked()
        one_of("too_long", self.too_long, ("error", "skip"))


KINDS: dict[str, type[RlSettings]] = {each.KIND: each for each in (DpoSettings, SftSettings)}


def read(kind: str, settings: dict[str, Any]) -> RlSettings:
    """The settings of a stage of a kind, checked.

    Raises:
        BadSettings: naming the setting, its value and what would fit.
    """
    found = build(KINDS[kind], settings, required=REQUIRED)
    found.checked()
    return found
