"""The values of Megatron-Bridge's ``ConfigContainer`` for one stage, section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.backends.megatron_bridge.settings import BridgeSettings
from jobs.core.spec import StageSpec

MIXED = {"bf16": "bf16_mixed", "fp32": None}


def of_stage(spec: StageSpec, world: int, minutes: int | None, newest: Path | None = None) -> dict[str, Any]:
    """Section -> values.

    Args:
        minutes: after how many it is to save and leave; None: no limit.
        newest: directory of the save to go on from; None: from the stage's input.

    Raises:
        BadSettings: what the stage was told does not fit.
    """
    settings = BridgeSettings.read(spec.settings)
    model = spec.inputs["checkpoint"].output
    scratch = spec.stage_paths.root / "megatron_bridge"
    work = str(spec.store_paths.saves / "megatron_bridge")
    return {
        "model": {
            "tensor_model_parallel_size": settings.tensor_parallel,
            "pipeline_model_parallel_size": settings.pipeline_parallel,
            "context_parallel_size": settings.context_parallel,
            "sequence_parallel": settings.sequence_parallel,
            "seq_length": settings.sequence_length,
        },
        "train": {
            "train_iters": settings.steps,
            "global_batch_size": settings.batch_size,
            "micro_batch_size": settings.micro(world),
            "exit_duration_in_mins": minutes,
            "exit_signal_handler": True,
        },
        "validation": {"eval_iters": 0},  # evaluation is a stage of its own
        "optimizer": {
            "optimizer": "adam",
            "lr": settings.lr,
            "min_lr": 0.0,
            "weight_decay": settings.weight_decay,
            "clip_grad": settings.max_grad_norm,
            "bf16": settings.precision == "bf16",
            "use_distributed_optimizer": True,
        },
        "scheduler": {
            "lr_decay_style": settings.schedule,
            "lr_warmup_iters": settings.warmup_steps,
            "lr_decay_iters": settings.steps,
            "start_weight_decay": settings.weight_decay,
            "end_weight_decay": settings.weight_decay,
            "weight_decay_incr_style": "constant",
        },
        "ddp": {"use_distributed_optimizer": True, "grad_reduce_in_fp32": True},
        "dataset": _dataset(spec.kind, spec, settings, scratch),
        "logger": {"log_interval": 1},
        "tokenizer": {"tokenizer_type": "HuggingFaceTokenizer", "tokenizer_model": str(model / "hf")},
        "checkpoint": {
            "save": work,
            "save_interval": settings.save_every or settings.steps,
            "load": None if newest is None else str(newest),
            "pretrained_checkpoint": str(model),
            "ckpt_format": "torch_dist",
            "async_save": False,  # a save is sealed when it returns
        },
        "rng": {"seed": settings.seed},
        "mixed_precision": MIXED[settings.precision],
    }


def _dataset(kind: str, spec: StageSpec, settings: BridgeSettings, scratch: Path) -> dict[str, Any]:
    given = spec.inputs["data"]
    if kind == "cpt":
        prefix = given.output / settings.split if given.format == "tokens" else scratch / "data" / "corpus"
        return {
            "seq_length": settings.sequence_length,
            "data_path": [str(prefix)],
            "split": "1,0,0",
            "random_seed": settings.seed,
            "reset_position_ids": False,
            "reset_attention_mask": False,
            "eod_mask_loss": False,
            "path_to_cache": str(scratch / "index"),
        }
    return {
        "seq_length": settings.sequence_length,
        "dataset_root": str(scratch / "data"),
        "seed": settings.seed,
        "do_validation": False,
        "do_test": False,
        "preprocessing": {"strip_whitespace": False, "separator": ""},  # ids as evaluation scores them
    }
