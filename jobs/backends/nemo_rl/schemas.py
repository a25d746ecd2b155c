"""How each version of NeMo-RL wants to be told things: the keys of its configuration that we write.

Recorded from the stock configurations and the readers of each release. Until 0.6 nothing checks keys: one that the
version does not know is silently ignored, and the run trains on the data set that the stock file names
(HelpSteer3, squad). So a rendered configuration is checked against these lists before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DataStyle(str, Enum):
    """Where the files of a data set are named.

    ``FIXED`` (0.3): ``data.train_data_path``, and a preference row must have the fields ``prompt``,
    ``chosen_response`` and ``rejected_response``. ``FLAT`` (0.4, 0.5): the same place, and keys that name the fields.
    ``BY_SPLIT`` (from 0.6): ``data.train.data_path``.
    """

    FIXED = "fixed"
    FLAT = "flat"
    BY_SPLIT = "by_split"


@dataclass(frozen=True)
class Schema:
    """``keys``: kind of the stage -> dotted names that the version reads, as far as we write them.

    ``clock``: whether it can be told when to save and leave (``checkpointing.checkpoint_must_save_by``).
    ``strips``: whether it takes newlines off the end of an answer. ``full_rows``: whether a row of SFT with exactly
    ``data.max_input_seq_length`` tokens is trained; where not, it is given no weight.
    """

    data: DataStyle
    keys: dict[str, frozenset[str]]
    clock: bool = True
    strips: bool = False
    full_rows: bool = True


_COMMON = frozenset({
    "defaults",
    "checkpointing.enabled", "checkpointing.checkpoint_dir", "checkpointing.metric_name",
    "checkpointing.higher_is_better", "checkpointing.keep_top_k", "checkpointing.save_period",
    "policy.model_name", "policy.tokenizer.name", "policy.tokenizer.chat_template",
    "policy.train_global_batch_size", "policy.train_micro_batch_size", "policy.max_total_sequence_length",
    "policy.precision", "policy.max_grad_norm", "policy.dtensor_cfg.enabled", "policy.dtensor_cfg.cpu_offload",
    "policy.dtensor_cfg.activation_checkpointing", "policy.dtensor_cfg.tensor_parallel_size",
    "policy.dtensor_cfg.context_parallel_size", "policy.dtensor_cfg.sequence_parallel",
    "policy.optimizer.kwargs.lr", "policy.optimizer.kwargs.weight_decay", "policy.scheduler",
    "data.max_input_seq_length",
    "logger.log_dir", "logger.wandb_enabled", "logger.tensorboard_enabled", "logger.monitor_gpus",
    "cluster.gpus_per_node", "cluster.num_nodes",
})  # fmt: skip
_SINCE_4 = frozenset({
    "checkpointing.checkpoint_must_save_by", "policy.dtensor_cfg._v2", "data.shuffle", "data.num_workers",
})  # fmt: skip
_SINCE_6 = frozenset({"checkpointing.save_optimizer", "data.validation"})


def _section(kind: str, *more: str) -> frozenset[str]:
    names = ("max_num_epochs", "max_num_steps", "val_period", "val_at_start", "seed", *more)
    return frozenset(f"{kind}.{name}" for name in names)


def _data(prefix: str, *names: str) -> frozenset[str]:
    return frozenset(f"data.{prefix}{name}" for name in names)


_DPO = _COMMON | _section("dpo", "reference_policy_kl_penalty")
_SFT = _COMMON | _section("sft") | _data("", "add_bos", "add_eos", "add_generation_prompt")
_PAIRS = ("prompt_key", "chosen_key", "rejected_key")
_ANSWERS = ("input_key", "output_key")

_FIXED = {
    "dpo": _DPO | _data("", "dataset_name", "train_data_path", "val_data_path"),
    "sft": _SFT | _data("", "dataset_name", "train_data_path", "val_data_path", *_ANSWERS),
}
_FLAT = {
    "dpo": _DPO | _SINCE_4 | _data("", "dataset_name", "train_data_path", "train_split", *_PAIRS),
    "sft": _SFT
    | _SINCE_4
    | _data("", "dataset_name", "train_data_path", "val_data_path", "train_split", "val_split", *_ANSWERS),
}
_BY_SPLIT = {
    "dpo": _DPO
    | _SINCE_4
    | _SINCE_6
    | {"dpo.val_at_end"}
    | _data("train.", "dataset_name", "data_path", "split", *_PAIRS),
    "sft": _SFT
    | _SINCE_4
    | _SINCE_6
    | {"sft.val_at_end"}
    | _data("train.", "dataset_name", "data_path", "split", *_ANSWERS),
}

KNOWN: dict[str, Schema] = {
    "0.3": Schema(DataStyle.FIXED, _FIXED, clock=False, strips=True),
    "0.4": Schema(DataStyle.FLAT, _FLAT),
    "0.5": Schema(DataStyle.FLAT, _FLAT),
    "0.6": Schema(DataStyle.BY_SPLIT, _BY_SPLIT, full_rows=False),
    "0.7": Schema(DataStyle.BY_SPLIT, _BY_SPLIT, full_rows=False),
}
"""Version (major.minor) -> schema. The development tree still calls itself 0.6.0 and reads what 0.7 reads."""


def of(version: str) -> Schema | None:
    """Schema of a version such as ``0.6.0``; None for one that is not known."""
    return KNOWN.get(".".join(version.split(".")[:2]))
