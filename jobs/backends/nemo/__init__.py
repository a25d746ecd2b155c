"""Back end ``nemo``: NeMo 2 (``nemo.collections.llm`` on megatron-core), continued pre-training and SFT.

It also converts Hugging Face directories to NeMo checkpoints and back; the planner inserts those where formats differ.
``settings`` checks what a stage was told, ``data`` writes what NeMo reads, ``model`` finds the model, ``recipes``
spreads it, ``train`` puts a trainer together, ``lora`` its adapters, ``control`` sits inside its loop, ``convert`` is
import and export, ``compat`` is life without transformer_engine. Format ``nemo``: ``weights/`` and ``context/`` as NeMo
writes them, and ``hf/``: the configuration and tokenizer files of the Hugging Face directory that the model came from,
byte by byte.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.core.capabilities import Capabilities, Memory
from jobs.core.spec import StageSpec
from jobs.training import checkpoints, interface, tokenizers, validation
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, needed, versions

NAME = "nemo"

LOGITS_OF_LOCAL_LAYERS = 7.0
"""Bytes a logit at the peak without transformer_engine: 6.9 to 7.2 on an H100, three shapes of a Llama of 1.24 billion
parameters (benchmarks/gpu/results)."""

# megatron-core: gradients are summed in fp32; a distributed optimizer is saved only with transformer_engine
_LOCAL = Memory(
    {"fp32": (4, 4, 8), "bf16": (2, 4, 12)},
    sharded_by="distributed_optimizer",
    local=True,
    scores=True,
    logits=LOGITS_OF_LOCAL_LAYERS,
    finished={"fp32": 4, "bf16": 2},
    recompute=("selective", "full"),
    splits=("tensor_parallel", "pipeline_parallel"),
    adapters=True,
    whole={"fp8": "none", "save_beside": False},
)
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft", "convert"}),
    formats_in=frozenset({"nemo"}),
    formats_out=frozenset({"nemo"}),
    launcher="torchrun",
    distributed=True,
    converts=frozenset({("hf", "nemo"), ("nemo", "hf")}),
    memory=replace(
        _LOCAL,
        sharded="optimizer",
        fused=True,
        local=False,
        scores=False,
        logits=8.0,
        without={"transformer_engine": _LOCAL},
    ),
    # 1 took another rotary base than transformers 5 writes, and took batches of SFT twice after a resume;
    # 2 mixed epochs, and took the mean of each pass
    revision=3,
)

PACKAGES = ("nemo_toolkit", "megatron-core", "torch", "transformers", "lightning")


def probe() -> dict[str, str]:
    """Versions of the packages that decide results.

    Raises:
        ImportError: one that is needed is missing, a NeMo without ``nemo.collections.llm``, or a set that cannot work.
    """
    found = {**needed(*PACKAGES), **versions("transformer_engine")}
    if not found["nemo_toolkit"].startswith("2."):
        version = found["nemo_toolkit"]
        raise ImportError(f"nemo_toolkit {version} has no nemo.collections.llm (2.0 to 2.7 have): pip install '<3'")
    numpy, core = versions("numpy").get("numpy", "1"), found["megatron-core"]
    if int(numpy.split(".")[0]) > 1 and _release(core) < (0, 16):  # it calls numpy.product, with several replicas
        raise ImportError(f"megatron-core {core} does not work with numpy {numpy}: pip install 'numpy<2'")
    if _release(found["nemo_toolkit"]) <= (2, 7) and _release(core) >= (0, 16):
        raise ImportError(f"NeMo's optimizer fails with megatron-core {core}: pip install 'megatron-core<0.16'")
    return found


def _release(version: str) -> tuple[int, int]:
    """Major and minor."""
    major, minor, *_ = [*map(int, re.findall(r"\d+", version)), 0, 0]
    return major, minor


def behaviour(checkpoint: Path) -> dict[str, Any]:
    """Ids of the probe texts by the loader call of training; reads NeMo checkpoints and Hugging Face directories."""
    from jobs.backends.nemo import layout

    return tokenizers.behaviour(layout.tokenizer_directory(checkpoint))


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """What a start runs and reads.

    Raises:
        BadSettings: what the stage was told does not fit.
    """
    if spec.kind != "convert":
        from jobs.backends.nemo import recipes
        from jobs.backends.nemo.settings import NemoSettings

        settings = NemoSettings.read(spec.settings, spec.kind)
        recipes.refuse(settings, spec.kind, shape.world, shape.processes)
        validation.rows_of(spec.inputs["data"], settings)
    return interface.in_process(spec, shape, CAPABILITIES.launcher)


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` is a whole checkpoint of the format ``nemo``, or of ``hf`` (an export)."""
    from jobs.backends.nemo import layout

    if (directory / "config.json").is_file():
        return checkpoints.hugging_face(directory)
    return Completeness(problem=layout.problem(directory))


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or convert; called on every rank."""
    if spec.kind == "convert":
        # transformer_engine asks for TF32 in every fp32 product, and so do NVIDIA's containers of torch; the logits of
        # a conversion are compared in fp32. The libraries read this once, so it comes before torch.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        from jobs.backends.nemo import convert

        return convert.run(spec, ctx)
    from jobs.backends.nemo import train

    return train.run(spec, ctx)
