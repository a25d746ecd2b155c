"""Back end ``trl``: Hugging Face checkpoints trained with transformers and TRL, on CPU or GPU, one process or DDP.

``settings`` checks what the stage was told, ``train`` puts a trainer together, ``control`` sits inside its loop
(progress, stop, saves). Evaluation is in ``jobs.evaluate``.
"""

from __future__ import annotations

from jobs.core.capabilities import Capabilities, Memory
from jobs.core.spec import StageSpec
from jobs.training import cpu, faults, interface
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, versions

NAME = "trl"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft", "dpo", "evaluate"}),
    formats_in=frozenset({"hf"}),
    formats_out=frozenset({"hf", "metrics"}),
    launcher="torchrun",
    distributed=True,
    # fp32 weights also under bf16 autocast; DistributedDataParallel copies gradients into buckets
    memory=Memory({"fp32": (4, 4, 8), "bf16": (4, 4, 8)}, logits=16.0, reference=4.0, buckets=4.0),
    # 1 took rows several times in a batch, lost the rotary base for transformers 4, and scored without a model's cap
    revision=2,
)

cpu.wait_passively()

PACKAGES = ("torch", "transformers", "tokenizers", "trl", "accelerate", "datasets", "numpy")


def probe() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return versions(*PACKAGES)


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """What a start runs and reads.

    Raises:
        BadSettings: what the stage was told does not fit.
    """
    if spec.kind != "evaluate":
        from jobs.backends.trl.settings import TrainSettings

        TrainSettings.read(spec.settings).split_batch(shape.world)
    return interface.in_process(spec, shape, CAPABILITIES.launcher)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or evaluate; called on every rank."""
    with faults.named():
        if spec.kind == "evaluate":
            from jobs import evaluate

            return evaluate.run(spec, ctx)
        from jobs.backends.trl import train

        return train.run(spec, ctx)
