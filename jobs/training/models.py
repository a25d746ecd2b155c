"""Loading a model of a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def load_model(checkpoint: Path) -> PreTrainedModel:
    """The model of a Hugging Face directory in fp32, from safetensors only (a pickle could run code)."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(checkpoint), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model
