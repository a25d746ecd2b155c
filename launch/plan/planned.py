"""A pipeline with its profile, planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.core.paths import Workspace
    from launch.config.pipeline_file import PipelineFile
    from launch.config.profile_file import ProfileFile
    from launch.plan.model import Plan


@dataclass(frozen=True)
class Planned:
    """A pipeline with its profile, planned."""

    pipeline: PipelineFile
    profile: ProfileFile
    workspace: Workspace
    plan: Plan
