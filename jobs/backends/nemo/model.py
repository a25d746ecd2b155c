"""The model of a stage: from the checkpoint it starts from, checked against a recipe where one is named."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends.nemo import compat, layout
from jobs.backends.nemo.settings import NemoSettings
from jobs.core.verdict import FailureClass
from jobs.settings import BadSettings

if TYPE_CHECKING:
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.collections.llm import GPTModel

SHAPE = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups")
"""Numbers of a configuration that make up an architecture."""

MODELS = {"llama": "LlamaModel", "mistral": "MistralModel", "qwen2": "Qwen2Model", "qwen3": "Qwen3Model"}
"""``model_type`` of a Hugging Face configuration -> class of ``nemo.collections.llm`` with an importer for it."""


class WrongVocabulary(RuntimeError):
    """The tokenizer has ids that the model has no embedding for."""

    failure = FailureClass.TOKENIZER


@dataclass(frozen=True)
class Parallel:
    """How one model is spread over processes; the rest of the processes hold further replicas."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    def replicas(self, world: int) -> int:
        """Data-parallel size.

        Raises:
            BadSettings: the processes do not divide.
        """
        size = self.tensor * self.pipeline * self.context
        if world % size:
            raise BadSettings(
                f"tensor_parallel {self.tensor} x pipeline_parallel {self.pipeline} x context_parallel {self.context} "
                f"= {size} processes for one model do not divide the {world} of the stage"
            )
        return world // size


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
    if settings.recompute != "none":
        config.recompute_granularity = settings.recompute
        if settings.recompute == "full":
            config.recompute_method, config.recompute_num_layers = "uniform", 1
    return model


def tokenizer(checkpoint: Path, model: GPTModel | None = None) -> AutoTokenizer:
    """NeMo's tokenizer over the files that the checkpoint carries.

    Raises:
        WrongVocabulary: it has more ids than ``model`` has embeddings.
    """
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    found = AutoTokenizer(str(layout.tokenizer_directory(checkpoint)))
    size = getattr(model.config, "vocab_size", None) if model is not None else None
    if size is not None and len(found.tokenizer) > size:
        raise WrongVocabulary(
            f"{checkpoint}: the tokenizer has {len(found.tokenizer)} ids, the model embeds {size}: "
            "is this tokenizer of another model?"
        )
    return found


def parallel(settings: NemoSettings, model: GPTModel, world: int) -> Parallel:
    """Sizes given in the settings, else those of the recipe, else 1.

    Raises:
        BadSettings: no such recipe, or a recipe for another architecture.
    """
    found = Parallel()
    if settings.recipe is not None:
        recipe = _recipe(settings.recipe, world)
        _check_shape(settings.recipe, recipe, model)
        strategy = recipe.trainer.strategy
        found = Parallel(
            strategy.tensor_model_parallel_size, strategy.pipeline_model_parallel_size, strategy.context_parallel_size
        )
    return Parallel(
        settings.tensor_parallel or found.tensor,
        settings.pipeline_parallel or found.pipeline,
        settings.context_parallel or found.context,
    )


def _recipe(name: str, world: int) -> Any:
    """The pre-training recipe ``name`` of the installed NeMo (a ``nemo_run`` configuration, nothing is built).

    Raises:
        BadSettings: there is none of that name; says which there are.
    """
    from nemo.collections import llm

    module = getattr(llm, name, None)
    if not hasattr(module, "pretrain_recipe"):
        known = sorted(other for other in dir(llm) if hasattr(getattr(llm, other), "pretrain_recipe"))
        raise BadSettings(f"no recipe {name!r} in this NeMo; there are: {', '.join(known)}")
    gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    return module.pretrain_recipe(name=name, dir=None, num_nodes=max(1, world // gpus), num_gpus_per_node=gpus)


def _check_shape(name: str, recipe: Any, model: GPTModel) -> None:
    import fiddle

    with compat.local_configs():
        wanted = fiddle.build(recipe.model.config)
    for key in SHAPE:
        if getattr(wanted, key) != getattr(model.config, key):
            raise BadSettings(
                f"recipe {name!r} has {key} {getattr(wanted, key)}, the checkpoint has {getattr(model.config, key)}"
            )


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
    private = tempfile.mkdtemp(prefix="overnight-tokenizer-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    found.save_hf_tokenizer_assets = functools.partial(found.save_hf_tokenizer_assets, save_path=private)
    return found
