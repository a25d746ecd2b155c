"""Values of training that are probably a slip: allowed, and told with their line. ``ranges: off`` turns that off."""

from __future__ import annotations

from jobs.core.settings import beta_note, rate_note
from launch.config.pipeline_file import PipelineFile
from launch.config.stages import DpoStage, TrainingStage

ADAPTERS = ("lora_rank", "adapter")
"""Options of a stage that trains adapters alone, with higher rates than whole models."""

WITHOUT = ("toy",)
"""Back ends that train no language model."""


def notes(pipeline: PipelineFile) -> list[str]:
    """A line for each learning rate or beta outside of its usual range."""
    found: list[str] = []
    for name, stage in pipeline.pipeline.stages.items():
        if pipeline.pipeline.ranges == "off" or not isinstance(stage, TrainingStage) or stage.backend in WITHOUT:
            continue
        said = {"lr": None if any(map(stage.options.get, ADAPTERS)) else rate_note(stage.kind, stage.lr)}
        if isinstance(stage, DpoStage):
            said["beta"] = beta_note(stage.beta)
        found += [f"{pipeline.where('stages', name, key)}: stages.{name}: {text}" for key, text in said.items() if text]
    return found
