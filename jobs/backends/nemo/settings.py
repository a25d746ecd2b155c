"""Settings of a NeMo stage, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jobs.core.settings import setting
from jobs.training.settings import BadSettings, FallingRate, LongRows, LoraKeys

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none in typing

LORA_TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")
"""Layers that adapters can stand beside, as Megatron calls them."""

THEIR_NAMES = {
    "q_proj": "linear_qkv", "k_proj": "linear_qkv", "v_proj": "linear_qkv", "o_proj": "linear_proj",
    "gate_proj": "linear_fc1", "up_proj": "linear_fc1", "down_proj": "linear_fc2",
}  # fmt: skip
"""Names of the layers of Hugging Face's models -> Megatron's, in which some are one."""


@dataclass(frozen=True, kw_only=True)
class NemoSettings(LongRows, LoraKeys, FallingRate):
    """What a NeMo stage can be told. ``recipe``: name of a recipe of the installed NeMo (``llama32_1b``) whose
    parallelism is used where none is given here, and whose architecture must be that of the checkpoint.
    ``distributed_optimizer`` None: on where it can be saved (with transformer_engine or apex). ``prompt_template``
    wraps the prompt of each row; it must have ``{prompt}`` in it once.

    ``packed`` (SFT): a sequence holds as many whole rows as fit; ``batch_size`` counts sequences.

    ``fp8``: matrix products of the layers in FP8 (transformer_engine), their scales from the steps before (``delayed``)
    or from each tensor as it is (``tensorwise``). ``save_beside``: saves are copied into the memory of the host and
    written while the training goes on.
    """

    LAYERS: ClassVar[tuple[str, ...]] = LORA_TARGETS
    NO_VALIDATION: ClassVar[str] = ""

    recipe: str | None = None
    tensor_parallel: int | None = setting(None, at_least=1)
    pipeline_parallel: int | None = setting(None, at_least=1)
    context_parallel: int | None = setting(None, at_least=1)
    sequence_parallel: bool = False
    recompute: str = setting("none", choices=("none", "selective", "full"))
    distributed_optimizer: bool | None = None
    prompt_template: str = "{prompt}"
    packed: bool = False
    fp8: str = setting("none", choices=("none", "delayed", "tensorwise"))
    save_beside: bool = False
    lora_targets: tuple[str, ...] = LORA_TARGETS
    data_workers: int = setting(0, at_least=0)

    @classmethod
    def read(cls, settings: Mapping[str, Any], kind: str = "sft") -> Self:
        """As for all back ends, for a stage of ``kind``."""
        found = super().read(settings)
        if found.packed:
            found._check_packed(kind)
        return found

    def check(self) -> None:
        super().check()
        if self.prompt_template.count("{prompt}") != 1:
            raise BadSettings(f"prompt_template must have {{prompt}} in it once: {self.prompt_template!r}")
        if self.sequence_parallel and (self.tensor_parallel or 1) < 2:
            raise BadSettings("sequence_parallel needs tensor_parallel of at least 2")
        for name in self.lora_targets:
            if name in THEIR_NAMES:
                raise BadSettings(f"lora_targets: {name} is a part of {THEIR_NAMES[name]} here: write that")
        self.check_lora()
        self._check_fp8()
        if self.save_beside and self.lora_rank is not None:
            raise BadSettings("save_beside: true is for whole weights, saves of adapters are small: leave it out")
        self.check_rank(self.tensor_parallel or 1)

    def check_rank(self, tensor: int) -> None:
        """Refuse a rank that does not divide over the ``tensor`` processes of a layer.

        Raises:
            BadSettings: with both numbers.
        """
        if self.lora_rank is not None and self.lora_rank % tensor:
            raise BadSettings(f"lora_rank {self.lora_rank} must be a multiple of tensor_parallel {tensor}")

    def _check_fp8(self) -> None:
        if self.fp8 == "none":
            return
        if self.precision != "bf16":
            raise BadSettings(f"fp8: {self.fp8} is a part of precision: bf16: write that, too")
        if self.lora_rank is not None or self.packed:
            other = "lora_rank" if self.lora_rank is not None else "packed"
            raise BadSettings(f"fp8: {self.fp8} is not there with {other}: leave one of them out")
        if self.sequence_length % 16:
            raise BadSettings(f"sequence_length {self.sequence_length} must be a multiple of 16 with fp8")

    def _check_packed(self, kind: str) -> None:
        if kind != "sft":
            raise BadSettings(f"packed is for kind sft; a sequence of kind {kind} is always full: leave it out")
        if self.micro_batch_size not in (None, 1):
            raise BadSettings(
                f"micro_batch_size must be 1 or left out with packed: true, not {self.micro_batch_size}; "
                f"sequence_length {self.sequence_length * self.micro_batch_size} takes as many tokens in a pass"
            )
        if (self.context_parallel or 1) > 1:
            raise BadSettings("packed: true is not there with context_parallel above 1; take tensor_parallel")
        if self.sequence_parallel and self.sequence_length % (self.tensor_parallel or 1):
            raise BadSettings(
                f"sequence_length {self.sequence_length} does not divide over tensor_parallel {self.tensor_parallel}, "
                "which sequence_parallel needs of packed sequences"
            )

    def micro_of(self, replicas: int, what: str = "model replicas") -> int:
        """As for all back ends; of packed sequences one at a time, as NeMo's kernels for them take them."""
        micro = super().micro_of(replicas, what)
        return 1 if self.packed else micro
