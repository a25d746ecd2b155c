"""How a model is spread over the processes of a stage: as its settings say, else as a recipe of NeMo does.

What does not fit is refused here, before a submission (nothing heavy is imported, unless a recipe is named) and again
by the job.
"""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.backends.nemo import compat
from jobs.backends.nemo.settings import NemoSettings
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from nemo.collections.llm import GPTModel

SHAPE = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups")
"""Numbers of a configuration that make up an architecture."""


_HYBRID = {"fp8": "hybrid", "fp8_margin": 0}
FP8: dict[str, dict[str, Any]] = {
    "none": {},
    "delayed": {**_HYBRID, "fp8_recipe": "delayed", "fp8_amax_history_len": 1024, "fp8_amax_compute_algo": "max"},
    "tensorwise": {**_HYBRID, "fp8_recipe": "tensorwise"},
}
"""What NeMo's precision is told for each value of ``fp8``, as its own recipes for FP8 tell it: E4M3, gradients E5M2."""


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


def refuse(settings: NemoSettings, kind: str, world: int, local: int) -> None:
    """Refuse what the installed NeMo, its optimizer or its layers would, with ``local`` processes on each node.

    Where NeMo is in an image that is on the nodes only, what depends on it is left to the job.

    Raises:
        BadSettings: what does not fit, and what to write instead.
        ImportError: a NeMo that cannot be imported.
    """
    here = importlib.util.find_spec("nemo") is not None
    if here:
        compat.distributed_optimizer(settings.distributed_optimizer)
    if here or settings.recipe is None:
        checked(settings, world, parallel(settings, kind, world, local), layers=here)


def checked(settings: NemoSettings, world: int, found: Parallel, layers: bool = True) -> Parallel:
    """``found``, if the batch and the rank of adapters divide over it and, with ``layers``, those installed can do it.

    Raises:
        BadSettings: what does not fit.
    """
    settings.check_rank(found.tensor)
    settings.micro_of(found.replicas(world))
    origin = "" if settings.recipe is None else f" (recipe {settings.recipe!r} brings it)"
    if settings.fp8 != "none" and layers and not compat.has_transformer_engine():
        raise BadSettings(f"fp8: {settings.fp8} needs transformer_engine, which is not installed here: leave it out")
    if found.context > 1 and settings.packed:
        raise BadSettings(
            f"packed: true is not there with context_parallel {found.context}{origin}: write context_parallel: 1"
        )
    if found.context > 1 and layers and not compat.has_transformer_engine():
        given = "" if settings.context_parallel is not None else origin
        raise BadSettings(
            f"context_parallel {found.context}{given} needs transformer_engine, which is not installed here: "
            "write context_parallel: 1, and tensor_parallel for long sequences"
        )
    if settings.sequence_parallel and layers and not compat.has_transformer_engine():
        raise BadSettings(
            "sequence_parallel: true needs transformer_engine, which is not installed here "
            "(the norms of layers without it refuse it): leave it out"
        )
    return found


def parallel(settings: NemoSettings, kind: str, world: int, local: int, network: GPTModel | None = None) -> Parallel:
    """Sizes given in the settings, else those of the recipe, else 1; ``network`` is compared with both.

    Raises:
        BadSettings: no such recipe, a recipe for another architecture, or a model that cannot be spread like this.
    """
    found = Parallel()
    if settings.recipe is not None:
        made = recipe(settings, kind, world, local)
        if network is not None:
            check_shape(settings.recipe, made, network)
        strategy = made.trainer.strategy
        found = Parallel(
            strategy.tensor_model_parallel_size, strategy.pipeline_model_parallel_size, strategy.context_parallel_size
        )
    found = Parallel(
        settings.tensor_parallel or found.tensor,
        settings.pipeline_parallel or found.pipeline,
        settings.context_parallel or found.context,
    )
    if network is not None:
        check_spread(found, network.config)
    return found


def recipe(settings: NemoSettings, kind: str, world: int, local: int) -> Any:
    """The recipe of the installed NeMo (a ``nemo_run`` configuration, nothing is built).

    That for fine-tuning for SFT (with adapters where the stage has them), else that for pre-training.

    Raises:
        BadSettings: there is none of that name; says which there are.
    """
    try:
        from nemo.collections import llm
    except (OSError, RuntimeError) as error:  # a login node without a GPU's driver
        raise ImportError(f"NeMo cannot be imported here: {error}") from error

    name = settings.recipe or ""
    module = getattr(llm, name, None)
    if module is None or not hasattr(module, "pretrain_recipe"):
        known = sorted(other for other in dir(llm) if hasattr(getattr(llm, other), "pretrain_recipe"))
        raise BadSettings(f"no recipe {name!r} in this NeMo; there are: {', '.join(known)}")
    places = {"name": name, "dir": None, "num_nodes": max(1, world // local), "num_gpus_per_node": local}
    if kind != "sft" or not hasattr(module, "finetune_recipe"):
        return module.pretrain_recipe(**places)
    if "peft_scheme" in inspect.signature(module.finetune_recipe).parameters:
        places["peft_scheme"] = "none" if settings.lora_rank is None else "lora"
    return module.finetune_recipe(**places)


def check_shape(name: str, made: Any, model: GPTModel) -> None:
    """Refuse a recipe for another architecture than the model's.

    Raises:
        BadSettings: with the first number that differs.
    """
    import fiddle

    with compat.local_configs():
        wanted = fiddle.build(made.model.config)
    for key in SHAPE:
        if getattr(wanted, key) != getattr(model.config, key):
            raise BadSettings(
                f"recipe {name!r} has {key} {getattr(wanted, key)}, the checkpoint has {getattr(model.config, key)}"
            )


def check_spread(found: Parallel, config: Any) -> None:
    """Refuse what Megatron's configuration would with an AssertionError.

    Raises:
        BadSettings: layers or heads that do not divide.
    """
    if config.num_layers % found.pipeline:
        raise BadSettings(
            f"pipeline_parallel {found.pipeline} does not divide the {config.num_layers} layers of the model"
        )
    for what, count in (("attention heads", config.num_attention_heads), ("query groups", config.num_query_groups)):
        if count and count % found.tensor:
            raise BadSettings(f"tensor_parallel {found.tensor} does not divide the {count} {what} of the model")
