"""What NeMo 2 leaves to transformer_engine and apex, and how a stage does without them.

With transformer_engine the fused layers of NeMo's default spec are used and nothing here does anything. Without it the
default spec is Megatron's local one: its layer norms are modules of their own, so that the names in NeMo's converters
(which know the fused layers only) do not fit, and several fusions that the model configurations switch on refuse.
Each context below changes one function of the library for as long as one call of ours takes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from jobs.training.settings import BadSettings

FUSIONS = (
    "apply_rope_fusion", "gradient_accumulation_fusion", "bias_dropout_fusion", "masked_softmax_fusion",
    "bias_activation_fusion", "cross_entropy_loss_fusion", "persist_layer_norm",
)  # fmt: skip
"""Switches of Megatron's TransformerConfig whose kernels are in transformer_engine or apex."""

LOCAL_NAMES = (
    ("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"),
    ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"),
)
"""Layer norms inside the fused layers of transformer_engine -> the modules of the local spec."""


def has_transformer_engine() -> bool:
    """Whether transformer_engine is installed (its import is not tried: it takes seconds)."""
    return importlib.util.find_spec("transformer_engine") is not None


def check_fp8() -> None:
    """Refuse a GPU that has no matrix products in FP8: Ada (8.9) and Hopper (9.0) are the first that do.

    Raises:
        BadSettings: with the GPU's name.
    """
    import torch

    if not torch.cuda.is_available():
        raise BadSettings("fp8 needs a GPU, and none is seen here: leave it out")
    if torch.cuda.get_device_capability() < (8, 9):
        raise BadSettings(f"fp8 needs a GPU like the H100; {torch.cuda.get_device_name()} has none: leave it out")


def can_save_distributed_optimizer() -> bool:
    """Whether the state of Megatron's distributed optimizer can be saved.

    Torch's Adam keeps ``step`` as a tensor without dimensions, which ``sharded_param_state_dp_reshardable`` refuses
    with an AssertionError at the first save; the Adam of transformer_engine and of apex does not keep it there.
    """
    return has_transformer_engine() or importlib.util.find_spec("apex") is not None


def distributed_optimizer(asked: bool | None) -> bool:
    """Whether to distribute the optimizer: as ``asked``, or where it can be saved (None).

    Raises:
        BadSettings: asked for one that could not be saved.
    """
    able = can_save_distributed_optimizer()
    if asked and not able:
        raise BadSettings(
            "distributed_optimizer: true trains but cannot be saved without transformer_engine or apex "
            "(neither is installed here); leave it out"
        )
    return able if asked is None else asked


def local_name(name: str) -> str:
    """A parameter name of the fused layers, as the local spec calls it."""
    if name.startswith(("decoder.", "**.")):
        for fused, local in LOCAL_NAMES:
            name = name.replace(fused, local)
    return name


@contextmanager
def local_configs() -> Iterator[None]:
    """Model configurations that are built inside have the fusions off that are not installed.

    They are checked in ``__post_init__``, so they cannot be switched off after construction.
    """
    if has_transformer_engine():
        yield
        return
    from megatron.core.transformer.transformer_config import TransformerConfig

    original = TransformerConfig.__post_init__

    def without_fusions(self: Any) -> None:
        for name in FUSIONS:
            if hasattr(self, name):
                setattr(self, name, False)
        if isinstance(getattr(self, "window_size", None), list):
            self.window_size = tuple(self.window_size)  # Megatron's masks are kept by it; NeMo reads it back as a list
        original(self)

    TransformerConfig.__post_init__ = without_fusions
    try:
        yield
    finally:
        TransformerConfig.__post_init__ = original


@contextmanager
def local_names() -> Iterator[None]:
    """Converters of NeMo that run inside meet the layer-norm names of the layers that there are."""
    if has_transformer_engine():
        yield
        return
    from nemo.lightning import io
    from nemo.lightning.io import state

    original = state.apply_transforms

    def renamed(source: Any, target: Any, mapping: dict[str, str], *rest: Any, **more: Any) -> Any:
        mapped = {local_name(left): local_name(right) for left, right in mapping.items()}
        return original(source, target, mapped, *rest, **more)

    state.apply_transforms = io.apply_transforms = renamed
    try:
        yield
    finally:
        state.apply_transforms = io.apply_transforms = original


@contextmanager
def local_adapters() -> Iterator[None]:
    """NeMo's LoRA asks of every layer whether it is one of transformer_engine; here none is.

    megatron-core 0.15 has the names of those layers also without it, as None, so that NeMo takes it to be there.
    """
    if has_transformer_engine():
        yield
        return
    from nemo.collections.llm.peft import lora, utils

    originals = lora.te, utils.HAVE_TE
    lora.te, utils.HAVE_TE = SimpleNamespace(Linear=None), False
    try:
        yield
    finally:
        lora.te, utils.HAVE_TE = originals
