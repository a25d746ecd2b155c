"""Back end ``trl``: Hugging Face checkpoints trained with transformers and TRL, on CPU or GPU, one process or DDP.

``settings`` checks what the stage was told, ``arguments`` says it to transformers, ``train`` puts a trainer together
(``trainers``: its classes; ``adapters``: LoRA), ``control`` sits inside its loop (progress, stop, saves). Evaluation is
in ``jobs.evaluate``.
"""

from __future__ import annotations

from pathlib import Path

from jobs.core.capabilities import LLAMA_LAYERS, LOGITS, Capabilities, Memory
from jobs.core.spec import StageSpec
from jobs.training import checkpoints, cpu, faults, interface, startup, validation
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, versions

NAME = "trl"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft", "dpo", "evaluate"}),
    formats_in=frozenset({"hf"}),
    formats_out=frozenset({"hf", "adapter", "metrics"}),
    launcher="torchrun",
    distributed=True,
    # fp32 weights also under bf16 autocast; DistributedDataParallel copies gradients into buckets
    memory=Memory(
        {"fp32": (4, 4, 8), "bf16": (4, 4, 8)},
        logits=LOGITS,
        reference=4.0,
        buckets=4.0,
        adapters=True,
        whole={"shard": "none", "save_beside": False},
        layers=LLAMA_LAYERS,
        frozen={"bf16": 2.0, "nf4": 0.52},  # 4 bits, and their scales in 8
        optimizers={"adamw_8bit": 2.03, "paged_adamw": 0.0, "paged_adamw_8bit": 0.0},  # pages can lie on the host
        recompute=(True,),
        sharded_by="shard",
        lean_by="liger",
    ),
    saves="hf",
    needs=frozenset({"torch", "transformers"}),
    extra="train",
    # 1 took rows several times in a batch, lost the rotary base for transformers 4, and scored without a model's cap
    revision=2,
)

INSTALL = ": pip install 'overnight[train]'"

cpu.wait_passively()

PACKAGES = (
    "torch", "transformers", "tokenizers", "trl", "accelerate", "datasets", "numpy", "peft", "bitsandbytes",
    "liger_kernel",
)  # fmt: skip


def probe() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return versions(*PACKAGES)


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """What a start runs and reads.

    Raises:
        BadSettings: what the stage was told does not fit.
        ImportError: a package is missing.
    """
    if spec.kind != "evaluate":
        from jobs.backends.trl.settings import TrainSettings

        settings = TrainSettings.read(spec.settings, spec.kind)
        settings.split_batch(shape.world)
        validation.rows_of(spec.inputs["data"], settings)
    wanted = ("torch", "transformers") if spec.kind == "evaluate" else ("torch", "transformers", "trl", "accelerate")
    interface.needed(*wanted, hint=INSTALL)
    return interface.in_process(spec, shape, CAPABILITIES.launcher)


def completeness(directory: Path) -> Completeness:
    """Whether a finished model, or adapters alone, are whole."""
    return checkpoints.or_adapters(directory)


def of_save(save: Path, source: Path, target: Path) -> None:
    """Make a model of a save of a training that began with ``source``.

    Raises:
        BadSettings: its weights are spread over processes.
    """
    from jobs.backends.trl import of_saves

    of_saves.write(save, source, target)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or evaluate; called on every rank."""
    with faults.named():
        startup.leave_out_sklearn()
        if spec.kind == "evaluate":
            from jobs import backends, evaluate

            return evaluate.run(spec, ctx, backends.load)
        from jobs.backends.trl import train

        return train.run(spec, ctx)
