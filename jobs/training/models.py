"""Loading a model of a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def load_model(checkpoint: Path, **more: Any) -> PreTrainedModel:
    """The model of a Hugging Face directory, from safetensors only (a pickle could run code); in fp32 where ``more``
    does not say another type."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(checkpoint), use_safetensors=True, local_files_only=True, **{"dtype": torch.float32, **more}
    )
    return model
