"""AutoModel's own low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685), drawn from the seed, merged."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from jobs.core import files
from jobs.training import adapters, finished
from jobs.training.checkpoints import ADAPTER, ADAPTER_WEIGHTS
from jobs.training.interface import Unfinished
from jobs.training.models import config_of, load_model

_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def check_targets(wanted: tuple[str, ...], source: Path) -> None:
    """Refuse layers that the model does not have: AutoModel would silently train those alone that it has.

    Raises:
        BadSettings: naming those that it has.
    """
    if wanted:
        with torch.device("meta"):
            adapters.check_targets(wanted, AutoModelForCausalLM.from_config(config_of(source)))


@torch.no_grad()
def draw(model: torch.nn.Module, seed: int) -> None:
    """Draw the first factors anew, as ``peft`` does: AutoModel draws on each process its own part, so another number of
    processes would train another model."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if not name.endswith(_DOWN):
            continue
        whole = torch.empty(weight.shape)
        torch.nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator)
        if isinstance(weight, DTensor):
            part = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements)
            weight.to_local().copy_(part.to_local())
        else:
            weight.copy_(whole)


def write(given: Path, source: Path, output: Path, alone: bool) -> None:
    """Write the adapters of directory ``given`` to ``output``, ``alone`` or added to the weights of ``source``.

    They are added in fp32, whatever type they were trained beside.
    """
    if alone:
        for name in (ADAPTER, ADAPTER_WEIGHTS):
            shutil.move(given / name, output / name)
        adapters.finish(source, output)
        return
    model = load_model(source)
    merge(model, given)
    model.save_pretrained(output)
    finished.finish(source, output)


@torch.no_grad()
def merge(model: PreTrainedModel, given: Path) -> None:
    """Add the adapters of directory ``given`` to the weights of ``model``.

    Raises:
        Unfinished: there is something else in it.
    """
    config: dict[str, Any] = files.read_json(given / ADAPTER)
    factors = load_file(given / ADAPTER_WEIGHTS)
    layers = {name.removesuffix(_DOWN) for name in factors if name.endswith(_DOWN)}
    if set(factors) != {layer + end for layer in layers for end in (_DOWN, _UP)}:
        raise Unfinished(f"{given / ADAPTER_WEIGHTS}: these are not two factors for each layer")
    for layer in sorted(layers):
        up, down = factors[layer + _UP].float(), factors[layer + _DOWN].float()
        weight = model.get_submodule(layer.removeprefix(_PREFIX)).weight
        weight += float(config["lora_alpha"] / config["r"]) * (up @ down)
