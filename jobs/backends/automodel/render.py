"""The configuration of AutoModel's recipe for one stage, as its YAML reader wants it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.backends.automodel.settings import AutomodelSettings

RECIPE = "TrainFinetuneRecipeForNextTokenPrediction"
PAIRS = "jobs.backends.automodel.data.PairsConfig"
CORPUS = "jobs.backends.automodel.data.BlocksConfig"
_NO_DECAY = r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)"
"""Names of norms and biases, of which transformers lets none decay."""

_BF16 = {"param_dtype": "bfloat16", "reduce_dtype": "float32", "output_dtype": None}
_FP32 = {"param_dtype": "float32", "reduce_dtype": "float32", "output_dtype": None}


@dataclass(frozen=True)
class AutomodelPaths:
    """Where a run reads and writes, and what it runs on. ``data``: the prefix of .bin and .idx (cpt), or rows of
    JSON (sft), whose ids are in ``scratch``. ``restore``: directory of the save to go on from."""

    model: Path
    data: Path
    scratch: Path
    world: int
    gpus: bool
    restore: Path | None = None


def configuration(kind: str, settings: AutomodelSettings, place: AutomodelPaths) -> dict[str, Any]:
    """All that the recipe reads. It saves when it is told to (``train``), never by a count of its own.

    Raises:
        BadSettings: the batch does not divide.
    """
    found: dict[str, Any] = {
        "recipe": RECIPE,
        "seed": settings.seed,
        "step_scheduler": {
            "global_batch_size": settings.batch_size,
            "local_batch_size": settings.micro(place.world),
            "max_steps": settings.steps,
            "num_epochs": 1,  # the data set holds exactly the rows of all steps
            "ckpt_every_steps": settings.steps,  # each step says whether a save is due
            "save_checkpoint_every_epoch": False,
            "validate_on_checkpoint": False,
            "val_every_steps": None,
            "preemption_signal": None,  # ours: a request is agreed on by all ranks at a step's end
        },
        "dist_env": {"backend": "nccl" if place.gpus else "gloo", "timeout_minutes": 30},
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": str(place.model),
            "torch_dtype": "float32",
        },
        "distributed": {
            "strategy": "fsdp2",
            "tp_size": settings.tensor_parallel,
            "cp_size": settings.context_parallel,
            "sequence_parallel": settings.sequence_parallel,
            "activation_checkpointing": settings.recompute,
            "mp_policy": _BF16 if settings.precision == "bf16" else _FP32,
        },
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "param_group_overrides": [{"pattern": _NO_DECAY, "wd_mult": 0.0}],
        },
        "lr_scheduler": {
            "lr_decay_style": settings.schedule,
            "lr_warmup_steps": settings.warmup_steps,
            "lr_decay_steps": settings.steps,
            "init_lr": 0.0,
            "max_lr": settings.lr,
            "min_lr": 0.0,
        },
        "clip_grad_norm": {"max_norm": settings.max_grad_norm},
        "checkpoint": {
            "enabled": True,
            "checkpoint_dir": str(place.scratch / "checkpoints"),
            "model_save_format": "safetensors",
            "save_consolidated": "final",
        },
        "dataset": _dataset(kind, settings, place),
        "dataloader": {
            "num_workers": settings.data_workers,
            "drop_last": True,
            "shuffle": False,  # the order is in the data set
            "collate_fn": {"_target_": _COLLATE},
        },
    }
    if settings.lora_rank is not None:
        found["peft"] = _adapters(settings)
    if place.restore is not None:
        found["checkpoint"]["restore_from"] = str(place.restore)
    return found


def _adapters(settings: AutomodelSettings) -> dict[str, Any]:
    """Dropout before the first factor, and its first values, as ``peft`` has them."""
    layers: dict[str, Any] = {"exclude_modules": ["*lm_head"]}
    if settings.lora_targets:
        layers = {"target_modules": [f"*.{name}" for name in settings.lora_targets]}
    return {
        "_target_": "nemo_automodel.components._peft.lora.PeftConfig",
        "dim": settings.lora_rank,
        "alpha": settings.alpha,
        "dropout": settings.lora_dropout,
        "dropout_position": "pre",
        **layers,
    }


_COLLATE = "nemo_automodel.components.datasets.utils.default_collater"


def _dataset(kind: str, settings: AutomodelSettings, place: AutomodelPaths) -> dict[str, Any]:
    if kind == "cpt":
        return {
            "_target_": CORPUS,
            "prefix": str(place.data),
            "seq_length": settings.sequence_length,
            "batch_size": settings.batch_size,
            "steps": settings.steps,
            "seed": settings.seed,
            "mixed": str(place.scratch / "data" / f"mixed-{settings.seed}"),
        }
    return {
        "_target_": PAIRS,
        "path": str(place.data),
        "rows": str(place.scratch / settings.split),
        "checkpoint": str(place.model),
        "batch_size": settings.batch_size,
        "steps": settings.steps,
        "seed": settings.seed,
    }
