"""The settings of a stage as the arguments of transformers and TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from jobs.backends.trl.settings import SCHEDULES, TrainSettings


def arguments(
    kind: str, settings: TrainSettings, world: int, saves: Path
) -> tuple[type[TrainingArguments], dict[str, Any]]:
    """Configuration class and arguments of the trainer of a kind."""
    micro, accumulate = settings.split_batch(world)
    common: dict[str, Any] = {
        "output_dir": str(saves),
        "max_steps": settings.steps,
        "learning_rate": settings.lr,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": SCHEDULES[settings.schedule],
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.precision == "bf16",
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "dataloader_drop_last": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide what StepControl must see
        "save_strategy": "no",  # StepControl decides
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    if not torch.cuda.is_available():
        common |= {"use_cpu": True, "dataloader_pin_memory": False}
        if world > 1:
            common["ddp_backend"] = "gloo"
    if kind == "cpt":
        return TrainingArguments, common
    from trl import DPOConfig, SFTConfig

    if kind == "sft":
        return SFTConfig, {**common, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    mixed: dict[str, Any] = {}
    if settings.sft_weight:
        mixed = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.sft_weight]}
    return DPOConfig, {**common, "remove_unused_columns": False, "max_length": None, "beta": settings.beta, **mixed}
