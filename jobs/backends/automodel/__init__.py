"""Back end ``automodel``: NVIDIA's NeMo AutoModel (``nemo-automodel`` on PyPI), CPT and SFT on Hugging Face models.

It reads and writes Hugging Face directories, so no conversion stands around it. ``settings`` checks what a stage was
told, ``render`` writes the recipe's configuration, ``data`` gives it the ids that every back end of ours trains on,
``train`` sits inside its training loop, ``adapters`` draws and merges its LoRA.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.core import files
from jobs.core.capabilities import FSDP, LLAMA_LAYERS, Capabilities
from jobs.core.spec import StageSpec
from jobs.training import cpu, interface, validation
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, needed

NAME = "automodel"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft"}),
    formats_in=frozenset({"hf"}),
    formats_out=frozenset({"hf", "adapter"}),
    launcher="torchrun",
    distributed=True,
    # its norms are compiled; frozen weights are kept in the type that is computed in
    memory=replace(FSDP, adapters=True, layers=LLAMA_LAYERS, frozen={"bf16": 2.0}, fused_norms=True),
    revision=3,  # 1 mixed the epochs of a corpus, 2 let norms decay
)

cpu.wait_passively()

PACKAGES = ("nemo-automodel", "torch", "transformers", "torchdata")
KNOWN = ("0.7",)
"""Versions (major.minor) whose configuration and training loop were read and run."""


def probe() -> dict[str, str]:
    """Versions of the packages that decide results.

    Raises:
        ImportError: one is missing, or a NeMo AutoModel of a version that is not known.
    """
    found = needed(*PACKAGES)
    version = found["nemo-automodel"]
    if ".".join(version.split(".")[:2]) not in KNOWN:
        raise ImportError(f"nemo-automodel {version} is not known here: pip install 'nemo-automodel>={KNOWN[0]},<0.8'")
    return found


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """The recipe's configuration, and the processes that read it.

    Raises:
        BadSettings: what the stage was told does not fit, or its newest save was made by another number of processes.
    """
    from jobs.backends.automodel import layout, render
    from jobs.backends.automodel.settings import AutomodelSettings

    settings = AutomodelSettings.read(spec.settings)
    validation.rows_of(spec.inputs["data"], settings)
    newest = next(iter(spec.store_paths.sealed_steps()), None)
    if newest is not None and not spec.store_paths.seal.exists():
        layout.refuse_other_ranks(spec.store_paths.save(newest), newest, shape.world)
    scratch = spec.stage_paths.root / "automodel"
    given = spec.inputs["data"]
    text = scratch / "data" / "corpus" if given.format == "corpus" else given.output / settings.split
    data = text if spec.kind == "cpt" else given.output / f"{settings.split}.jsonl"
    place = render.AutomodelPaths(spec.inputs["checkpoint"].output, data, scratch, shape.world, shape.gpus)
    config = files.json_text(render.configuration(spec.kind, settings, place))
    return interface.in_process(spec, shape, CAPABILITIES.launcher, {"automodel/config.yaml": config})


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` is a whole Hugging Face checkpoint, adapters alone, or one of the recipe's own (with its
    step)."""
    from jobs.backends.automodel import layout

    return layout.completeness(directory)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train; called on every rank."""
    from jobs.backends.automodel import train

    return train.run(spec, ctx)
