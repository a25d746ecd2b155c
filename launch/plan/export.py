"""What an export knows about its model: where it comes from, what was done to it, and with which data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.config.fields import memory_bytes
from launch.config.kinds import FETCHED

if TYPE_CHECKING:
    from launch.config.export import ExportStage
    from launch.config.pipeline import Pipeline

TOLD = (
    "steps", "epochs", "lr", "batch_size", "sequence_length", "schedule", "warmup_steps", "precision", "beta",
    "lora_rank", "loss", "seed",
)  # fmt: skip
"""Settings of training that a card shows."""


def settings_of(pipeline: Pipeline, name: str) -> dict[str, Any]:
    """The settings of an export; what it tells of the user's own files is that they are that, and no path."""
    stage: ExportStage = pipeline.stages[name]  # type: ignore[assignment]
    base = pipeline.model.base
    return {
        "export": {
            "gguf": None if stage.to.gguf is None else stage.to.gguf.type,
            "vllm": stage.to.vllm,
            "max_shard_bytes": memory_bytes(stage.max_shard_size),
        },
        "name": pipeline.name,
        "base": base if base.startswith(("hf:", "pypi:")) else "",
        "lineage": [_told(pipeline, one) for one in lineage(pipeline, stage.checkpoint)],
    }


def lineage(pipeline: Pipeline, checkpoint: str) -> list[str]:
    """The trainings that made a model, the first one first."""
    from launch.config.stages import TrainingStage

    found: list[str] = []
    while checkpoint != FETCHED:
        stage = pipeline.stages[checkpoint]
        if isinstance(stage, TrainingStage):
            found.append(checkpoint)
        parents = pipeline.parents(checkpoint)
        checkpoint = parents.get("checkpoint", FETCHED)
    return found[::-1]


def _told(pipeline: Pipeline, name: str) -> dict[str, Any]:
    from launch.config.stages import TrainingStage

    stage = pipeline.stages[name]
    assert isinstance(stage, TrainingStage)
    settings = stage.settings() | {"seed": pipeline.seed_of(name)}
    shown = {key: settings[key] for key in TOLD if settings.get(key) is not None}
    packages = list(getattr(pipeline.source_of(stage.data), "packages", ()))
    return {"stage": name, "kind": stage.kind, "backend": stage.backend, "settings": shown, "data": stage.data,
            "packages": packages}  # fmt: skip
