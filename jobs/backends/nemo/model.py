"""The model of a stage, from the checkpoint that it starts from, and its tokenizer."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends.nemo import compat, layout
from jobs.backends.nemo.settings import NemoSettings
from jobs.encoding.load import check_embedded
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.collections.llm import GPTModel

MODELS = {"llama": "LlamaModel", "mistral": "MistralModel", "qwen2": "Qwen2Model", "qwen3": "Qwen3Model"}
"""``model_type`` of a Hugging Face configuration -> class of ``nemo.collections.llm`` with an importer for it."""


def from_checkpoint(checkpoint: Path, settings: NemoSettings) -> GPTModel:
    """A model without weights, configured as the one in ``checkpoint`` and for this stage.

    The weights are restored by the trainer. What is changed here is not part of the model's saved description, so the
    next stage and the export find the model's own sequence length.

    Raises:
        BrokenCheckpoint: not a NeMo checkpoint.
    """
    from nemo.lightning.io import load_context

    layout.check(checkpoint)
    with compat.local_configs():
        model: GPTModel = load_context(checkpoint, subpath="model")
    config = model.config
    config.seq_length = settings.sequence_length
    config.calculate_per_token_loss = True  # else the mean of each pass, so that the size of a pass would decide
    if settings.recompute != "none":
        config.recompute_granularity = settings.recompute
        if settings.recompute == "full":
            config.recompute_method, config.recompute_num_layers = "uniform", 1
    return model


def check_packed(model: GPTModel) -> None:
    """Refuse packed sequences where rows would see each other.

    Raises:
        BadSettings: attention within a window, for which Megatron's local layers take a mask of their own.
    """
    if getattr(model.config, "window_size", None) is not None and not compat.has_transformer_engine():
        raise BadSettings(
            f"packed: true needs transformer_engine for this model: it attends within a window "
            f"({model.config.window_size}), and layers without it would let rows see each other; leave packed out"
        )


def tokenizer(checkpoint: Path, model: GPTModel | None = None) -> AutoTokenizer:
    """NeMo's tokenizer over the files that the checkpoint carries.

    Raises:
        WrongVocabulary: ``model`` has no embedding for some of its ids.
    """
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    found = AutoTokenizer(str(layout.tokenizer_directory(checkpoint)))
    if model is not None:
        ids = found.tokenizer.get_vocab().values()
        check_embedded(checkpoint, ids, getattr(model.config, "vocab_size", None))
    return found


def importer(directory: Path) -> Any:
    """NeMo's importer for the architecture of a Hugging Face directory.

    It writes the tokenizer down and reads it again, with leave to run what lies beside it, and that in
    ``/tmp/nemo_tokenizer``, which on a shared node is another job's or another user's. Ours is a directory of this
    process, gone with it; the checkpoint gets copies.

    Raises:
        BadSettings: an architecture without one (or not tried with this back end).
    """
    import json

    from nemo.collections import llm

    kind = json.loads((directory / "config.json").read_text()).get("model_type")
    if kind not in MODELS:
        raise BadSettings(f"{directory}: model_type {kind!r} cannot be imported; known: {', '.join(sorted(MODELS))}")
    found = getattr(llm, MODELS[kind]).importer(f"hf://{directory}")
    found.trust_remote_code = False  # those of Qwen read it; set nowhere but in a method that is not called here
    private = tempfile.mkdtemp(prefix="overnight-tokenizer-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    found.save_hf_tokenizer_assets = functools.partial(found.save_hf_tokenizer_assets, save_path=private)
    return found
