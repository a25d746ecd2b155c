"""Adapters beside frozen weights: LoRA, DoRA and QLoRA of ``peft``; added to the weights at the end, or kept alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from jobs.backends.trl.settings import TrainSettings
from jobs.training import adapters
from jobs.training.models import load_model

if TYPE_CHECKING:
    from transformers import Trainer


def load_base(source: Path, settings: TrainSettings) -> PreTrainedModel:
    """The weights that stay as they are: in the type that is computed in, or in 4 bits."""
    computed = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    more: dict[str, Any] = {"attn_implementation": settings.attention}
    if settings.lora_base == "nf4":
        from transformers import BitsAndBytesConfig

        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=computed,
        )
    return load_model(source, computed, **more)


def configured(settings: TrainSettings, model: PreTrainedModel) -> LoraConfig:
    """What ``peft`` puts beside ``model``.

    Raises:
        BadSettings: a layer of ``lora_targets`` that the model does not have.
    """
    adapters.check_targets(settings.lora_targets, model)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets) or "all-linear",
        use_dora=settings.lora_dora,
        use_rslora=settings.lora_rslora,
    )


def in_fp32(model: torch.nn.Module) -> None:
    """Have adapters beside 4 bits in fp32: TRL rounds them to bf16, and a resumed run would go on with them in fp32."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def write(trainer: Trainer, source: Path, output: Path, settings: TrainSettings) -> bool:
    """Write the adapters to ``output``, or the weights of ``source`` with them added; whether those are there.

    They are added to weights in fp32, whatever type or number of bits they were trained beside.
    """
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(output)
    if settings.output == "adapter":
        adapters.finish(source, output)
        return False
    merged = PeftModel.from_pretrained(load_model(source), str(output)).merge_and_unload()
    for path in output.iterdir():
        path.unlink()
    merged.save_pretrained(output)
    return True
