"""The configuration of a NeMo-RL run, as the version at hand wants it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.backends.nemo_rl.checkout import Checkout
from jobs.backends.nemo_rl.schemas import DataStyle, Schema
from jobs.backends.nemo_rl.settings import PRECISIONS, DpoSettings
from jobs.settings import BadSettings

NEVER = 10**10
"""Steps for which a constant learning rate lasts."""


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes, and what it runs on. ``must_save_by``: seconds after set-up; None: no limit."""

    model: Path
    data: Path
    rows: int
    checkpoints: Path
    logs: Path
    nodes: int
    gpus_per_node: int
    must_save_by: float | None = None


def configuration(settings: DpoSettings, place: Place, checkout: Checkout) -> dict[str, Any]:
    """A configuration that inherits the stock file and says all that matters for the result.

    Raises:
        BadSettings: the batch does not divide, or a key that this version would silently ignore.
    """
    world = place.nodes * place.gpus_per_node
    steps_an_epoch = place.rows // settings.batch_size  # NeMo-RL drops the last, smaller batch
    if steps_an_epoch < 1:
        raise BadSettings(f"{place.data}: {place.rows} rows are less than one batch_size of {settings.batch_size}")
    found: dict[str, Any] = {
        "defaults": str(checkout.stock),
        "dpo": {
            "max_num_steps": settings.steps,
            "max_num_epochs": -(-settings.steps // steps_an_epoch),
            "val_period": 0,
            "val_at_start": False,
            "seed": settings.seed,
            "reference_policy_kl_penalty": settings.beta,
        },
        "checkpointing": {
            "enabled": True,
            "checkpoint_dir": str(place.checkpoints),
            "metric_name": None,  # keep the newest: there is no validation inside the stage
            "higher_is_better": False,
            "keep_top_k": settings.keep_saves,
            "save_period": settings.save_every or settings.steps,
            "checkpoint_must_save_by": None if place.must_save_by is None else duration(place.must_save_by),
        },
        "policy": {
            "model_name": str(place.model),
            "tokenizer": {"name": str(place.model), "chat_template": _TEMPLATES[settings.chat_template]},
            "train_global_batch_size": settings.batch_size,
            "train_micro_batch_size": settings.micro(world),
            "max_total_sequence_length": settings.sequence_length,
            "precision": PRECISIONS[settings.precision],
            "max_grad_norm": settings.max_grad_norm,
            "dtensor_cfg": {
                "enabled": True,
                "cpu_offload": settings.cpu_offload,
                "activation_checkpointing": settings.recompute,
                "tensor_parallel_size": settings.tensor_parallel,
                "context_parallel_size": settings.context_parallel,
                "sequence_parallel": settings.sequence_parallel,
            },
            "optimizer": {"kwargs": {"lr": settings.lr, "weight_decay": settings.weight_decay}},
            "scheduler": scheduler(settings),
        },
        "data": {
            "max_input_seq_length": settings.sequence_length,
            "shuffle": True,
            "num_workers": 0,
            **_data(place.data, checkout.schema.data),
        },
        "logger": {
            "log_dir": str(place.logs),
            "wandb_enabled": settings.wandb_project is not None,
            "tensorboard_enabled": settings.tensorboard,
            "monitor_gpus": False,
        },
        "cluster": {"gpus_per_node": place.gpus_per_node, "num_nodes": place.nodes},
    }
    if settings.wandb_project is not None:
        found["logger"]["wandb"] = {"project": settings.wandb_project, "name": place.logs.parent.name}
    if checkout.schema.data is DataStyle.BY_SPLIT:
        found["dpo"]["val_at_end"] = False
        found["checkpointing"]["save_optimizer"] = True
    check(found, checkout.schema)
    return found


_TEMPLATES = {"plain": None, "default": "default"}


def _data(path: Path, style: DataStyle) -> dict[str, Any]:
    """Our preference rows have NeMo-RL's own field names, so no row is rewritten."""
    keys = {"prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"}
    if style is DataStyle.FLAT:
        return {"dataset_name": "BinaryPreferenceDataset", "train_data_path": str(path), "train_split": "train", **keys}
    named = {"dataset_name": "BinaryPreferenceDataset", "data_path": str(path), "split": "train", **keys}
    return {"train": named, "validation": None}


def scheduler(settings: DpoSettings) -> list[dict[str, Any]]:
    """Warm-up, then the schedule. A list, as in the stock file: it is replaced as a whole."""
    prefix = "torch.optim.lr_scheduler."
    warmup = max(1, settings.warmup_steps)
    rest = max(1, settings.steps - warmup)
    after = {
        "constant": {"name": prefix + "ConstantLR", "kwargs": {"factor": 1.0, "total_iters": NEVER}},
        "cosine": {"name": prefix + "CosineAnnealingLR", "kwargs": {"T_max": rest, "eta_min": 0.0}},
        "linear": {
            "name": prefix + "LinearLR", "kwargs": {"start_factor": 1.0, "end_factor": 1e-8, "total_iters": rest},
        },
    }[settings.schedule]  # fmt: skip
    start = 1.0 / (settings.warmup_steps + 1)
    kwargs = {"start_factor": start, "end_factor": 1.0, "total_iters": warmup}
    return [{"name": prefix + "LinearLR", "kwargs": kwargs}, after, {"milestones": [warmup]}]


def duration(seconds: float) -> str:
    """``DD:HH:MM:SS``, the only form that NeMo-RL reads (with three fields it fails, after the whole set-up)."""
    whole = max(1, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day:02d}:{hour:02d}:{minute:02d}:{second:02d}"


def check(found: Mapping[str, Any], schema: Schema) -> None:
    """Refuse keys that the version does not read.

    Raises:
        BadSettings: with the nearest known key.
    """
    for name in _names(found):
        if name not in schema.keys:
            near = difflib.get_close_matches(name, schema.keys, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise BadSettings(f"this NeMo-RL would silently ignore the key {name}{hint}")


def _names(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, name + ".")
        else:
            yield name


def text(found: Mapping[str, Any]) -> str:
    """The configuration as YAML (JSON is YAML, and needs no library)."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
