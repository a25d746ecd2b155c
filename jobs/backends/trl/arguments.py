"""The settings of a stage as the arguments of transformers and TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from jobs.backends.trl.settings import OPTIMIZERS, TrainSettings


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
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.precision == "bf16",
        "optim": OPTIMIZERS[settings.optimizer],
        "gradient_checkpointing": settings.recompute and settings.shard == "none",
        "dataloader_drop_last": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide what StepControl must see
        "save_strategy": "no",  # StepControl decides
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    if settings.shard == "full":
        # a save of every process its part, which another number of them can read
        sharding = {"state_dict_type": "SHARDED_STATE_DICT", "activation_checkpointing": settings.recompute}
        common |= {"fsdp": True, "fsdp_config": sharding}
    if not torch.cuda.is_available():
        common |= {"use_cpu": True, "dataloader_pin_memory": False}
        if world > 1 or settings.shard == "full":
            common["ddp_backend"] = "gloo"
    if settings.liger:
        common["use_liger_kernel"] = True
    if kind != "dpo":
        common |= {"label_smoothing_factor": settings.label_smoothing, "neftune_noise_alpha": settings.neftune_alpha}
    if kind == "cpt":
        return TrainingArguments, common
    from trl import DPOConfig, SFTConfig

    if kind == "sft":
        common |= {"padding_free": settings.padding_free, "dataset_kwargs": {"skip_prepare_dataset": True}}
        return SFTConfig, {**common, "max_length": None}
    common |= {"loss_type": [settings.loss], "label_smoothing": settings.label_smoothing, "beta": settings.beta}
    if settings.sft_weight:
        common |= {"loss_type": [settings.loss, "sft"], "loss_weights": [1.0, settings.sft_weight]}
    return DPOConfig, {**common, "remove_unused_columns": False, "max_length": None}
