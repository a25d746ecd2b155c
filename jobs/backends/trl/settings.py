"""Settings of a training stage, checked before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jobs.core.settings import DpoKeys, setting
from jobs.training.interface import needs, needs_release
from jobs.training.settings import BadSettings, FallingRate, KeptLoraKeys, LongRows

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none in typing

OPTIMIZERS = {
    "adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}  # fmt: skip
"""Our names for optimizers, and those of transformers; all but the first are of bitsandbytes."""

LOSSES = ("sigmoid", "ipo", "robust", "hinge", "exo_pair", "nca_pair", "apo_zero", "apo_down", "sppo_hard")
"""Losses of DPO, as TRL calls them."""

SMOOTHED = ("robust", "exo_pair")
"""Those in which TRL uses ``label_smoothing``."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LongRows, KeptLoraKeys, DpoKeys, FallingRate):
    """What a training stage can be told.

    ``sft_weight`` (dpo) adds that much of the chosen answers' own loss, as in RPO (Pang et al. 2024,
    https://arxiv.org/abs/2404.19733): DPO alone may widen the margin by making both answers less likely.

    Adapters: ``lora_dora`` splits weights into direction and size (DoRA, https://arxiv.org/abs/2402.09353),
    ``lora_rslora`` divides by the root of the rank (https://arxiv.org/abs/2312.03732), ``lora_base`` keeps the frozen
    weights in 4 bits (QLoRA, https://arxiv.org/abs/2305.14314).

    ``warmup_ratio`` counts ``warmup_steps`` from the steps. ``recompute`` keeps the inputs of layers only.
    ``shard: full`` spreads weights, gradients and optimizer over the processes (FSDP2); with ``save_beside`` its saves
    are copied into the memory of the host and written while the training goes on. ``attention`` None: what
    transformers takes. ``liger`` (cpt) takes the kernels of liger-kernel, whose loss keeps no logits; TRL's trainer
    does not take that loss. ``padding_free`` (sft) puts the rows of a pass behind each other.
    """

    NO_VALIDATION: ClassVar[str] = ""

    sft_weight: float = setting(0.0, at_least=0)
    loss: str = setting("sigmoid", choices=LOSSES)
    label_smoothing: float = setting(0.0, at_least=0, below=0.5)
    optimizer: str = setting("adamw", choices=tuple(OPTIMIZERS))
    warmup_ratio: float | None = setting(None, at_least=0, below=1)
    recompute: bool = False
    shard: str = setting("none", choices=("none", "full"))
    save_beside: bool = False
    attention: str | None = setting(None, choices=("sdpa", "eager", "flash_attention_2"))
    liger: bool = False
    neftune_alpha: float | None = setting(None, above=0)
    padding_free: bool = False
    lora_dora: bool = False
    lora_rslora: bool = False
    lora_base: str = setting("whole", choices=("whole", "nf4"))

    @classmethod
    def read(cls, settings: Mapping[str, Any], kind: str = "sft") -> Self:
        """As for all back ends, for a stage of ``kind``."""
        found = super().read(settings)
        only: dict[str, dict[str, Any]] = {
            "dpo": {"sft_weight": 0.0, "loss": "sigmoid"},
            "sft": {"padding_free": False, "neftune_alpha": None},
            "cpt": {"liger": False},
        }  # fmt: skip
        for other, names in only.items():
            for name, default in names.items():
                if kind != other and getattr(found, name) != default:
                    raise BadSettings(f"{name} is for kind {other}: leave it out of a stage of kind {kind}")
        if found.shard == "full" and (kind == "dpo" or found.lora_rank is not None):
            raise BadSettings("shard: full is for kinds cpt and sft without adapters: write shard: none")
        if found.liger and found.label_smoothing:
            raise BadSettings("liger: true makes no logits, which label_smoothing needs: leave one of them out")
        if kind != "dpo" and found.label_smoothing:
            needs_release("transformers", (5, 15), "label_smoothing")  # older ones take the mean of each pass
        if kind == "dpo":
            if found.lora_dropout:
                raise BadSettings("lora_dropout: TRL compares preferences without dropout: leave it out")
            if found.label_smoothing and found.loss not in SMOOTHED:
                raise BadSettings(
                    f"label_smoothing is for loss {' and '.join(SMOOTHED)}, TRL does not use it in {found.loss}: leave "
                    "it out, or write loss: robust"
                )
            if found.loss == "exo_pair" and not found.label_smoothing:
                raise BadSettings("loss: exo_pair needs label_smoothing above 0 (0.001, say)")
        found._check_packages()  # last: what is invalid with any installation is reported first
        return found

    def check(self) -> None:
        super().check()
        self.check_lora()
        if self.warmup_ratio is not None and self.warmup_steps:
            raise BadSettings("warmup_steps and warmup_ratio say the same thing twice: leave one of them out")
        if self.warmup_ratio is not None and self.steps:
            self._with_warmup().check()
        if self.save_beside and self.shard != "full":
            raise BadSettings("save_beside: true is for shard: full: leave it out")
        if self.optimizer != "adamw" and self.shard == "full":
            raise BadSettings(f"optimizer: {self.optimizer} takes no sharded weights: write adamw, or shard: none")

    def _check_packages(self) -> None:
        """Raises Missing: a setting needs a package that is not installed here."""
        if self.optimizer != "adamw":
            needs("bitsandbytes", f"optimizer: {self.optimizer}")
        if self.attention == "flash_attention_2":
            needs("flash_attn", "attention: flash_attention_2", "flash-attn")
        if self.liger:
            needs("liger_kernel", "liger: true", "liger-kernel")
        if self.lora_rank is not None:
            needs("peft", "lora_rank")
        if self.lora_base == "nf4":
            needs("bitsandbytes", "lora_base: nf4")

    def counted(self, examples: int) -> Self:
        """As for all back ends, also with the steps of ``warmup_ratio``."""
        return super().counted(examples)._with_warmup()

    def _with_warmup(self) -> Self:
        """With the ``warmup_steps`` that ``warmup_ratio`` comes to."""
        if self.warmup_ratio is None:
            return self
        return replace(self, warmup_steps=math.ceil(self.warmup_ratio * self.steps), warmup_ratio=None)

    def split_batch(self, world: int) -> tuple[int, int]:
        """(examples a process takes in one pass, passes a step) for ``world`` processes.

        Raises:
            BadSettings: the batch does not divide.
        """
        micro = self.micro_of(world, "processes")
        return micro, self.batch_size // world // micro
