"""The configuration of a NeMo-RL run, as the version at hand wants it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.backends.nemo_rl.checkout import Checkout
from jobs.backends.nemo_rl.schemas import DataStyle, Schema
from jobs.backends.nemo_rl.settings import PRECISIONS, DpoSettings, RlSettings
from jobs.training.settings import BadSettings

NEVER = 10**10
"""Steps for which a constant learning rate lasts."""


@dataclass(frozen=True)
class NemoRlPaths:
    """Where a run reads and writes, and what it runs on.

    ``must_save_by``: seconds after set-up; None: no limit. ``bos``: whether NeMo-RL is to put the beginning token
    before a text; ``eos``: the end token behind an answer.
    """

    model: Path
    data: Path
    rows: int
    checkpoints: Path
    logs: Path
    nodes: int
    gpus_per_node: int
    must_save_by: float | None = None
    bos: bool = True
    eos: bool = True


def configuration(settings: RlSettings, place: NemoRlPaths, checkout: Checkout) -> dict[str, Any]:
    """A configuration that inherits the stock file and says all that matters for the result.

    Raises:
        BadSettings: the batch does not divide, a time limit that this version cannot be told, or a key that it would
            silently ignore.
    """
    kind, schema = settings.KIND, checkout.schema
    world = place.nodes * place.gpus_per_node
    steps_an_epoch = place.rows // settings.batch_size  # NeMo-RL drops the last, smaller batch
    if steps_an_epoch < 1:
        raise BadSettings(f"{place.data}: {place.rows} rows are less than one batch_size of {settings.batch_size}")
    if not schema.clock and settings.save_every is None:
        raise BadSettings(
            f"NeMo-RL {checkout.version} has no way to save before a time limit: set save_every, and the stage is "
            "ended after a save when the limit comes near"
        )
    found: dict[str, Any] = {
        "defaults": str(checkout.stock(kind)),
        kind: {
            "max_num_steps": settings.steps,
            # From 0.4 the file holds the rows of all steps in their order, else each row once.
            "max_num_epochs": 1 if schema.data is not DataStyle.FIXED else -(-settings.steps // steps_an_epoch),
            "val_period": 0,
            "val_at_start": False,
            "seed": settings.seed,
        },
        "checkpointing": {
            "enabled": True,
            "checkpoint_dir": str(place.checkpoints),
            "metric_name": None,  # keep the newest: there is no validation inside the stage
            "higher_is_better": False,
            "keep_top_k": settings.keep_saves,
            "save_period": settings.save_every or settings.steps,
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
            **_data(place.data, schema.data, kind),
        },
        "logger": {
            "log_dir": str(place.logs),
            "wandb_enabled": False,
            "tensorboard_enabled": False,
            "monitor_gpus": False,
        },
        "cluster": {"gpus_per_node": place.gpus_per_node, "num_nodes": place.nodes},
    }
    _add_of_version(found, settings, place, schema)
    check(found, schema.keys[kind])
    return found


def _add_of_version(found: dict[str, Any], settings: RlSettings, place: NemoRlPaths, schema: Schema) -> None:
    """What only this kind of stage, or this version, reads."""
    if isinstance(settings, DpoSettings):
        found["dpo"]["reference_policy_kl_penalty"] = settings.beta
    else:
        found["data"] |= {"add_bos": place.bos, "add_eos": place.eos, "add_generation_prompt": False}
        if not schema.full_rows:
            found["data"]["max_input_seq_length"] += 1
    if schema.data is not DataStyle.FIXED:
        found["data"] |= {"shuffle": False, "num_workers": 0}
        # The first DTensor worker, also where the stock file takes the second: that one writes another layout.
        found["policy"]["dtensor_cfg"]["_v2"] = False
        limit = None if place.must_save_by is None else duration(place.must_save_by)
        found["checkpointing"]["checkpoint_must_save_by"] = limit
    if schema.data is DataStyle.BY_SPLIT:
        found[settings.KIND]["val_at_end"] = False
        found["checkpointing"]["save_optimizer"] = True


PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Adds nothing. Written out: NeMo-RL takes null for the same, and the types of 0.7 refuse it."""

_TEMPLATES = {"plain": PLAIN, "default": "default"}

NAMES = {
    (DataStyle.FIXED, "dpo"): "ours",  # any but HelpSteer3 is read from a file
    (DataStyle.FIXED, "sft"): "prompt_response_dataset",
}
"""Name of the data set of a file; elsewhere ``BinaryPreferenceDataset`` and ``ResponseDataset``."""

FIELDS = {
    "dpo": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    "sft": {"input": "prompt", "output": "completion"},
}
"""What NeMo-RL calls a field (its key: ``..._key``) -> our name for it."""


def name_of(style: DataStyle, kind: str) -> str:
    """``dataset_name`` of a data set that lies in a file."""
    return NAMES.get((style, kind)) or {"dpo": "BinaryPreferenceDataset", "sft": "ResponseDataset"}[kind]


def _data(path: Path, style: DataStyle, kind: str) -> dict[str, Any]:
    """Where the rows are. Nothing is validated inside the stage; SFT before 0.6, and 0.3, load a file for it anyway."""
    keys = {f"{name}_key": ours for name, ours in FIELDS[kind].items()}
    name = name_of(style, kind)
    if style is DataStyle.BY_SPLIT:
        return {"train": {"dataset_name": name, "data_path": str(path), "split": "train", **keys}, "validation": None}
    found = {"dataset_name": name, "train_data_path": str(path)}
    if kind == "sft" or style is DataStyle.FIXED:
        found["val_data_path"] = str(path)
    if style is DataStyle.FIXED:
        return found | (keys if kind == "sft" else {})
    if kind == "sft":
        found["val_split"] = "train"
    return {**found, "train_split": "train", **keys}


def scheduler(settings: RlSettings) -> list[dict[str, Any]]:
    """Warm-up, then the schedule. A list, as in the stock file: it is replaced as a whole."""
    prefix = "torch.optim.lr_scheduler."
    warmup = max(1, settings.warmup_steps)
    rest = max(1, settings.steps - warmup)
    after = {
        "constant": {"name": prefix + "ConstantLR", "kwargs": {"factor": 1.0, "total_iters": NEVER}},
        "cosine": {"name": prefix + "CosineAnnealingLR", "kwargs": {"T_max": rest, "eta_min": 0.0}},
        "linear": {
            "name": prefix + "LinearLR",
            "kwargs": {"start_factor": 1.0, "end_factor": 1e-8, "total_iters": rest},
        },
    }[settings.schedule]
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


def check(found: Mapping[str, Any], keys: Collection[str]) -> None:
    """Refuse keys that the version does not read.

    Raises:
        BadSettings: with the nearest known key.
    """
    for name in _names(found):
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise BadSettings(f"this NeMo-RL would silently ignore the key {name}{hint}")


def _names(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, name + ".")
        else:
            yield name
