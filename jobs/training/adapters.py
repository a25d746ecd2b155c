"""Adapters (LoRA) beside models of transformers: which layers get one, and a finished directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs.core import files
from jobs.training import tokenizers
from jobs.training.checkpoints import ADAPTER
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD = "lm_head"
"""The linear layer that gets no adapter."""


def check_targets(wanted: Iterable[str], model: PreTrainedModel) -> None:
    """Refuse layers that ``model`` does not have.

    Raises:
        BadSettings: naming those that it has.
    """
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    linear.discard(HEAD)
    for name in wanted:
        if name not in linear:
            raise BadSettings(f"lora_targets: the model has no {name!r}, but {', '.join(sorted(linear))}")


def finish(source: Path, output: Path) -> None:
    """Give a directory of adapters the name of the model that they stand beside, and its tokenizer."""
    found = files.read_json(output / ADAPTER)
    files.write_json(output / ADAPTER, {**found, "base_model_name_or_path": str(source)})
    tokenizers.carry_over(source, output)
