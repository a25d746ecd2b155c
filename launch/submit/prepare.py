"""What a user asks for, read and planned, with what has to be there before it is submitted or run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.base.errors import InputError
from launch.plan import builder, gather
from launch.plan.model import Planned

if TYPE_CHECKING:
    from jobs.core.paths import Workspace
    from launch.config.pipeline_file import PipelineFile
    from launch.config.profile_file import ProfileFile


@dataclass(frozen=True)
class PipelineOnCluster:
    """A pipeline file on a cluster. ``cluster``: name or file of a profile; ``overrides``: texts of ``--set``;
    ``workspace``: None: where ``launch.runs.rundir.workspace_for`` finds it."""

    pipeline: Path
    cluster: str
    overrides: tuple[str, ...] = ()
    workspace: Path | None = None

    def command(self, verb: str) -> str:
        """``overnight VERB`` for it, as the user would type it."""
        import shlex

        words = ["overnight", verb, str(self.pipeline), "--cluster", self.cluster]
        if verb != "fetch":
            words += [word for one in self.overrides for word in ("--set", one)]
        if self.workspace:
            words += ["--workspace", str(self.workspace)]
        return shlex.join(words)


def read(wanted: PipelineOnCluster) -> tuple[PipelineFile, ProfileFile, Workspace]:
    """The pipeline, the profile under it, and the workspace. Raises InputError: with file, line and column."""
    from launch.config import data_settings
    from launch.config.pipeline_file import read_pipeline
    from launch.config.profile_file import locate, read_profile
    from launch.runs.rundir import workspace_for

    try:
        pipeline = data_settings.checked(read_pipeline(wanted.pipeline, wanted.overrides))
        profile = read_profile(locate(wanted.cluster)).with_pipeline(pipeline.data, pipeline.positions)
    except InputError as error:
        if error.hint is not None and error.hint.startswith(
            ("overnight plan ", "overnight profile check ")
        ):  # which knows only its own file
            error.hint = wanted.command("plan")
        raise
    return pipeline, profile, workspace_for(profile.profile, wanted.workspace)


def plan(wanted: PipelineOnCluster) -> Planned:
    """Its plan. Raises InputError: with file, line and column."""
    pipeline, profile, workspace = read(wanted)
    gathered = gather.gather(pipeline, profile.profile, workspace)
    return Planned(pipeline, profile, workspace, builder.build(pipeline.pipeline, profile.profile, gathered))


def refuse_missing(planned: Planned, wanted: PipelineOnCluster) -> None:
    """Raises InputError: an input has not been fetched, and compute nodes have no internet; names the command."""
    missing = planned.plan.missing
    if missing:
        names = ", ".join(f"{item.name} ({item.request})" for item in missing)
        raise InputError(f"not in the workspace {planned.workspace.root}: {names}", hint=wanted.command("fetch"))


def secrets(planned: Planned) -> dict[str, str]:
    """Values of the secrets that pipeline and profile name. Raises InputError: one has none; where it is named."""
    import os

    from launch.config import secrets

    wanted: dict[str, str] = {}
    for index, name in enumerate(planned.profile.profile.secrets):
        wanted[name] = planned.profile.where("secrets", index)
    for index, name in enumerate(planned.profile.profile.notify.to):
        wanted.setdefault(name, planned.profile.where("notify", "to", index))
    for index, name in enumerate(planned.pipeline.pipeline.secrets):
        wanted[name] = planned.pipeline.where("secrets", index)
    return secrets.collect(wanted, os.environ, secrets.user_file())
