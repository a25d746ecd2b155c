"""Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685): NeMo's own, trained and merged.

NeMo puts the adapters in after the base weights are loaded, and its checkpoint writer keeps nothing but them and their
optimizer. The finished checkpoint has them added to the weights, so that it is one like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from megatron.core import parallel_state
from nemo.collections.llm.peft.lora import LoRA, LoRALinear
from nemo.lightning.resume import AdapterPath

from jobs.backends.nemo import compat
from jobs.backends.nemo.settings import NemoSettings

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from nemo.collections.llm import GPTModel


class Adapters(LoRA):
    """NeMo's LoRA, with dropout that a resumed run repeats and with recomputation of whole layers."""

    seed = 0
    recomputed = False

    def __call__(self, model: torch.nn.Module) -> torch.nn.Module:
        """Freeze ``model`` and put the adapters in.

        A layer that is recomputed gets gradients only if its input wants one; the frozen embedding's output does not.
        """
        with compat.local_adapters():
            changed: torch.nn.Module = super().__call__(model)
        for module in changed.modules():
            if self.recomputed and hasattr(module, "word_embeddings"):
                module.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
        return changed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draw the step's dropout from its number: saves hold no state of the generators."""
        if self.dropout > 0:
            replica = parallel_state.get_data_parallel_rank()
            torch.manual_seed(hash((self.seed, trainer.global_step, replica)))  # of numbers: the same in every process


def connect(settings: NemoSettings, network: GPTModel, trainer: Trainer) -> None:
    """Have ``network`` trained with adapters.

    Not by ``llm.finetune(peft=...)``, which writes them into the description of the model that the next stage builds.
    """
    found = Adapters(
        target_modules=list(settings.lora_targets),
        dim=settings.lora_rank,
        alpha=settings.alpha,
        dropout=settings.lora_dropout,
    )
    found.seed, found.recomputed = settings.seed, settings.recompute == "full"
    network.model_transform = found
    trainer.callbacks.append(found)


def save_of(save: Path | str, base: Path) -> AdapterPath:
    """A save of adapters as NeMo resumes from it: the weights that they stand beside come from ``base``."""
    return AdapterPath(Path(save), base_model_path=base)


def trained(model: torch.nn.Module) -> int:
    """Parameters that this process trains."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def finish(trainer: Trainer) -> None:
    """Merge, and have the strategy write whole checkpoints again."""
    merge(trainer.strategy.megatron_parallel)
    trainer.strategy.checkpoint_io = trainer.strategy.checkpoint_io.checkpoint_io


@torch.no_grad()
def merge(model: torch.nn.Module) -> None:
    """Add every adapter to the weights that it stands beside, in fp32, and take it out.

    NeMo's ``LoRAMerge`` multiplies the two factors as they lie on a process, which is wrong with tensor parallelism.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRALinear):
                weight = child.to_wrap.weight
                weight.copy_(weight.float() + _product(child.adapter, len(weight)))
                setattr(parent, name, child.to_wrap)


def _product(adapter: Any, rows: int) -> torch.Tensor:
    """What an adapter adds to this process's part of the weights, (``rows``, inputs).

    Both factors are spread over the tensor-parallel processes by their rows; the one whose rows are not those of the
    weights is needed whole.
    """
    inner, outer = _all_rows(adapter.linear_in.weight, adapter.dim), _all_rows(adapter.linear_out.weight, rows)
    return float(adapter.alpha / adapter.dim) * outer.float() @ inner.float()


def _all_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """``weight`` if it has ``rows``, else that of all tensor-parallel processes below each other."""
    if len(weight) == rows:
        return weight
    parts = [torch.empty_like(weight) for _ in range(parallel_state.get_tensor_model_parallel_world_size())]
    torch.distributed.all_gather(parts, weight.contiguous(), group=parallel_state.get_tensor_model_parallel_group())
    return torch.cat(parts)
