"""Back end ``megatron_bridge``: NVIDIA's successor of ``nemo.collections.llm``. Experimental: never run by us.

Megatron-Bridge needs transformer_engine even for conversions, so it cannot be imported without an NVIDIA GPU's stack.
What is here was written from its source (0.6.2): ``render`` writes the values of its ``ConfigContainer``, ``work``
trains by them and converts by its ``AutoBridge``. Format ``megatron``: ``iter_NNNNNNN/`` and
``latest_checkpointed_iteration.txt`` as Megatron-Core writes them, and ``hf/``: configuration and tokenizer files of
the model that it came from.
"""

from __future__ import annotations

from pathlib import Path

from jobs.core import files
from jobs.core.capabilities import Capabilities, Memory
from jobs.core.spec import StageSpec
from jobs.training import interface
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, needed

NAME = "megatron_bridge"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft", "convert"}),
    formats_in=frozenset({"megatron"}),
    formats_out=frozenset({"megatron"}),
    launcher="torchrun",
    distributed=True,
    converts=frozenset({("hf", "megatron"), ("megatron", "hf")}),
    memory=Memory(
        {"fp32": (4, 4, 8), "bf16": (2, 4, 12)},
        sharded="optimizer",
        fused=True,
        finished={"fp32": 4, "bf16": 2},
        splits=("tensor_parallel", "pipeline_parallel"),
    ),
    experimental="written from the source of megatron-bridge 0.6; no stage of it has been run by us",
)

PACKAGES = ("megatron-bridge", "megatron-core", "torch", "transformers", "transformer_engine")


def probe() -> dict[str, str]:
    """Versions of the packages that decide results.

    Raises:
        ImportError: one of them is missing.
    """
    return needed(*PACKAGES, hint="; NVIDIA's NeMo container has all of Megatron-Bridge")


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """The configuration of the stage, and the processes that read it.

    Raises:
        BadSettings: what the stage was told does not fit.
    """
    from jobs.backends.megatron_bridge import render

    if spec.kind == "convert":
        return interface.in_process(spec, shape, "python")
    text = files.json_text(render.of_stage(spec, shape.world, None))
    return interface.in_process(spec, shape, CAPABILITIES.launcher, {"megatron_bridge/config.json": text})


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` is a whole checkpoint of the format ``megatron``, with its step, or of ``hf``."""
    from jobs.backends.megatron_bridge import layout

    return layout.completeness(directory)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or convert; called on every rank."""
    from jobs.backends.megatron_bridge import work

    return work.run(spec, ctx)
