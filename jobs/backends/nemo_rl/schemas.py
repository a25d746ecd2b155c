"""How each version of NeMo-RL wants to be told things: the keys of its DPO configuration that we write.

Recorded from examples/configs/dpo.yaml and the readers of each release. Until 0.6 nothing checks keys: one that the
version does not know is ignored without a word, and the run trains on the data set that the stock file names
(HelpSteer3). So a rendered configuration is checked against these lists before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DataStyle(str, Enum):
    """Where the files of a data set are named: ``data.train_data_path``, or ``data.train.data_path`` (from 0.6)."""

    FLAT = "flat"
    BY_SPLIT = "by_split"


@dataclass(frozen=True)
class Schema:
    """``keys``: dotted names that the version reads, as far as we write them."""

    data: DataStyle
    keys: frozenset[str]


_COMMON = frozenset({
    "defaults",
    "dpo.max_num_epochs", "dpo.max_num_steps", "dpo.val_period", "dpo.val_at_start", "dpo.seed",
    "dpo.reference_policy_kl_penalty",
    "checkpointing.enabled", "checkpointing.checkpoint_dir", "checkpointing.metric_name",
    "checkpointing.higher_is_better", "checkpointing.keep_top_k", "checkpointing.save_period",
    "checkpointing.checkpoint_must_save_by",
    "policy.model_name", "policy.tokenizer.name", "policy.tokenizer.chat_template",
    "policy.train_global_batch_size", "policy.train_micro_batch_size", "policy.max_total_sequence_length",
    "policy.precision", "policy.max_grad_norm", "policy.dtensor_cfg.enabled", "policy.dtensor_cfg.cpu_offload",
    "policy.dtensor_cfg.activation_checkpointing", "policy.dtensor_cfg.tensor_parallel_size",
    "policy.dtensor_cfg.context_parallel_size", "policy.dtensor_cfg.sequence_parallel",
    "policy.optimizer.kwargs.lr", "policy.optimizer.kwargs.weight_decay", "policy.scheduler",
    "data.max_input_seq_length", "data.shuffle", "data.num_workers",
    "logger.log_dir", "logger.wandb_enabled", "logger.wandb.project", "logger.wandb.name",
    "logger.tensorboard_enabled", "logger.monitor_gpus",
    "cluster.gpus_per_node", "cluster.num_nodes",
})  # fmt: skip
_FLAT = _COMMON | {
    "data.dataset_name", "data.train_data_path", "data.prompt_key", "data.chosen_key", "data.rejected_key",
    "data.train_split",
}  # fmt: skip
_BY_SPLIT = _COMMON | {
    "dpo.val_at_end", "checkpointing.save_optimizer", "data.validation", "data.train.dataset_name",
    "data.train.data_path", "data.train.prompt_key", "data.train.chosen_key", "data.train.rejected_key",
    "data.train.split",
}  # fmt: skip

KNOWN: dict[str, Schema] = {
    "0.4": Schema(DataStyle.FLAT, _FLAT),
    "0.5": Schema(DataStyle.FLAT, _FLAT),
    "0.6": Schema(DataStyle.BY_SPLIT, _BY_SPLIT),
    "0.7": Schema(DataStyle.BY_SPLIT, _BY_SPLIT),
}
"""Version (major.minor) -> schema. The development tree still calls itself 0.6.0 and reads what 0.7 reads."""


def of(version: str) -> Schema | None:
    """Schema of a version such as ``0.6.0``; None for one that is not known."""
    return KNOWN.get(".".join(version.split(".")[:2]))
