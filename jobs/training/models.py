"""Models of Hugging Face directories: loaded, and asked for their logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

_TYPE = "dtype" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56) else "torch_dtype"
"""How ``from_pretrained`` calls the type of weights."""

_GENERATION_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def config_of(checkpoint: Path) -> Any:
    """The configuration of a Hugging Face directory."""
    return AutoConfig.from_pretrained(str(checkpoint), local_files_only=True)


def type_of(config: Any) -> torch.dtype:
    """Type of weights that a configuration names; fp32 where it names none."""
    named = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return named if isinstance(named, torch.dtype) else torch.float32


def load_model(checkpoint: Path, dtype: torch.dtype = torch.float32, **more: Any) -> PreTrainedModel:
    """The model of a Hugging Face directory, from safetensors only (a pickle could run code).

    Of its generation settings it keeps the ids: many directories have others that transformers reads and then does not
    save (a temperature without ``do_sample``). Finished models get the file of their base, byte by byte.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(checkpoint), use_safetensors=True, local_files_only=True, **{_TYPE: dtype, **more}
    )
    if (given := model.generation_config) is not None:
        model.generation_config = GenerationConfig(**{name: getattr(given, name) for name in _GENERATION_IDS})
    return model


def logits(model: PreTrainedModel, probes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits of each probe text in fp32 on the CPU, (tokens, vocabulary); computed where the model is."""
    model.eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in probes]


def digests(model: PreTrainedModel) -> dict[str, str]:
    """Name -> SHA-256 of each tensor that ``model`` saves, as fp32: equal for equal weights, whatever their type."""
    found = {}
    for name, value in model.state_dict().items():
        plain = value.detach().float().cpu().contiguous().view(torch.uint8).numpy()
        found[name] = hashlib.sha256(plain).hexdigest()
    return found
