"""What several commands share: options, reading pipeline and profile, planning, opening a run, printing a result."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launch.base import answers, paint, waiting

if TYPE_CHECKING:
    from jobs.core.paths import Workspace
    from launch.config.pipeline_file import PipelineFile
    from launch.config.profile import Profile
    from launch.config.profile_file import ProfileFile
    from launch.plan.model import Plan, Planned
    from launch.runs.rundir import Run
    from launch.site.finding import Finding


def add_pipeline(parser: argparse.ArgumentParser, cluster: str | None = None) -> None:
    """The pipeline file, the profile and overrides."""
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE", help="pipeline file (YAML)")
    parser.add_argument(
        "--cluster", metavar="PROFILE", default=cluster, required=cluster is None, help="profile: a name or a YAML file"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value: --set stages.cpt.steps=4"
    )
    add_workspace(parser)


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """Where runs and results lie, and the form of the output."""
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="default: $OVERNIGHT_WORKSPACE, the profile's, or ~/overnight"
    )
    parser.add_argument("--json", action="store_true", help="print machine-readable output")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, by the beginning of its id."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="beginning of a run id, or a family (default: the newest run)"
    )
    add_workspace(parser)


def open_run(args: argparse.Namespace) -> tuple[Run, Plan, Profile]:
    """The run that ``args`` name, its plan and its profile. Raises InputError: no such run, or it has no plan."""
    from launch.base.errors import InputError
    from launch.runs import rundir

    if (args.run or "").startswith("f-"):  # launch.runs.family
        raise InputError(f"{args.run} names a family, and this takes a run of it", hint=f"overnight status {args.run}")
    run = rundir.find(args.run, args.workspace)
    return run, run.plan(), run.profile()


def print_result(value: Mapping[str, object], lines: Iterable[str], as_json: bool) -> None:
    """Print ``value`` as one line of JSON with the name of its schema, or else ``lines`` for people."""
    if as_json:
        print(answers.dumps(value))
    else:
        paint.out(lines)


def print_findings(value: dict[str, object], findings: list[Finding], as_json: bool) -> int:
    """Print what was checked, beside ``value``; 1 where something fails."""
    from launch.site.finding import Level, table

    failed = any(one.level is Level.FAIL for one in findings)
    value = {**value, "ok": not failed, "findings": [one.as_json() for one in findings]}
    print_result(value, table(findings), as_json)
    return 1 if failed else 0


def read(args: argparse.Namespace) -> tuple[PipelineFile, ProfileFile, Workspace]:
    """The pipeline, the profile and the workspace that ``args`` name. Raises InputError: with file, line and column."""
    import shlex

    from launch.base.errors import InputError
    from launch.config import data_settings
    from launch.config.pipeline_file import read_pipeline
    from launch.config.profile_file import locate, read_profile
    from launch.runs.rundir import workspace_for

    try:
        pipeline = data_settings.checked(read_pipeline(args.pipeline, args.set))
        profile = read_profile(locate(args.cluster)).with_pipeline(pipeline.data, pipeline.positions)
    except InputError as error:
        if error.hint is not None and error.hint.startswith("overnight plan "):  # which knows only its own file
            error.hint = shlex.join(["overnight", "plan", str(args.pipeline), "--cluster", args.cluster])
        raise
    return pipeline, profile, workspace_for(profile.profile, args.workspace)


def is_swept(args: argparse.Namespace) -> bool:
    """Whether the pipeline file has a sweep, or the options make one. Raises InputError: it cannot be read."""
    from launch.config.document.reader import read

    asked = bool(getattr(args, "sweep", None)) or any(one.startswith("sweep.") for one in args.set)
    return asked or read(args.pipeline).data.get("sweep") is not None


def plan(args: argparse.Namespace) -> Planned:
    """The plan of what the options name. Raises InputError: with file, line and column."""
    from launch.plan import builder, gather
    from launch.plan.model import Planned

    with waiting.shown("planning", quiet=getattr(args, "json", False)):
        pipeline, profile, workspace = read(args)
        gathered = gather.gather(pipeline, profile.profile, workspace)
        return Planned(pipeline, profile, workspace, builder.build(pipeline.pipeline, profile.profile, gathered))


def refuse_missing(planned: Planned, args: argparse.Namespace) -> None:
    """Raises InputError: an input has not been fetched, and compute nodes have no internet; names the command."""
    from launch.base.errors import InputError

    missing = planned.plan.missing
    if missing:
        names = ", ".join(f"{item.name} ({item.request})" for item in missing)
        raise InputError(f"not in the workspace {planned.workspace.root}: {names}", hint=fetch_command(args))


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


def fetch_command(args: argparse.Namespace) -> str:
    """The command that brings what is missing, as the user would type it."""
    import shlex

    words = ["overnight", "fetch", str(args.pipeline), "--cluster", args.cluster]
    if args.workspace:
        words += ["--workspace", str(args.workspace)]
    return shlex.join(words)
