"""What several commands share: options, what they name, opening a run, printing a result."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launch.base import answers, paint

if TYPE_CHECKING:
    from jobs.core.paths import Workspace
    from launch.config.profile import Profile
    from launch.config.profile_file import ProfileFile
    from launch.plan.model import Plan
    from launch.runs.rundir import Run
    from launch.site.finding import Finding
    from launch.submit.prepare import PipelineOnCluster


def add_pipeline(parser: argparse.ArgumentParser, cluster: str | None = None, otherwise: str | None = None) -> None:
    """The pipeline file, the profile and overrides. ``cluster``: the default profile; without one it is looked for
    (``cluster_of``), and is ``otherwise`` where there is none or no single one."""
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE", help="pipeline file (YAML)")
    usual = f"default: {cluster}"
    if cluster is None:
        usual = f"default: $OVERNIGHT_CLUSTER, or your only profile{f', or {otherwise}' if otherwise else ''}"
    parser.add_argument(
        "--cluster", metavar="PROFILE", default=cluster, help=f"profile: a name or a YAML file ({usual})"
    )
    parser.set_defaults(cluster_otherwise=otherwise)
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
    """The run that ``args`` name, its plan and its profile. Of a command that also takes a stage the run may be left
    out: ``why sft`` is about the newest one. Raises InputError: no such run, or it has no plan."""
    from launch.base.errors import InputError
    from launch.runs import rundir

    if args.run is not None and getattr(args, "stage", "") is None and _is_stage(args):
        args.run, args.stage = None, args.run
    if (args.run or "").startswith("f-"):  # launch.runs.family
        raise InputError(f"{args.run} names a family, and this takes a run of it", hint=f"overnight status {args.run}")
    run = rundir.find(args.run, args.workspace)
    return run, run.plan(), run.profile()


def _is_stage(args: argparse.Namespace) -> bool:
    """Whether the one name is a stage of the newest run, and not a run. Raises InputError: it can be both."""
    from launch.base.errors import InputError
    from launch.runs import rundir

    runs = rundir.all_runs(args.workspace)
    try:
        if not runs or args.run not in {stage.name for stage in runs[0].plan().stages}:
            return False
    except InputError:  # a run without a plan: being made, or damaged
        return False
    both = [run.id for run in runs if run.id.startswith(args.run)]
    if both:
        text = f"{args.run!r} is a stage of run {runs[0].id}, the newest, and the beginning of run {both[0]}"
        raise InputError(text, hint=f"write both: RUN {args.run}")
    return True


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


def is_swept(args: argparse.Namespace) -> bool:
    """Whether the pipeline file has a sweep, or the options make one. Raises InputError: it cannot be read."""
    from launch.config.document.reader import read

    asked = bool(getattr(args, "sweep", None)) or any(one.startswith("sweep.") for one in args.set)
    return asked or read(args.pipeline).data.get("sweep") is not None


def cluster_of(args: argparse.Namespace) -> str:
    """The profile that ``args`` name, else the default one, which is printed once. Raises InputError: there is none."""
    from launch.base.errors import InputError
    from launch.config.profile_file import default_name

    if args.cluster is None:
        try:
            args.cluster, why = default_name()
            note(f"--cluster {args.cluster} ({why})")
        except InputError:
            if args.cluster_otherwise is None:
                raise
            args.cluster = args.cluster_otherwise
    return str(args.cluster)


def site(args: argparse.Namespace) -> tuple[ProfileFile, Workspace]:
    """The profile and the workspace that ``args`` name, without a pipeline. Raises InputError: with file, line and
    column."""
    from launch.config.profile_file import locate, read_profile
    from launch.runs.rundir import workspace_for

    profile = read_profile(locate(cluster_of(args)))
    return profile, workspace_for(profile.profile, args.workspace)


def wanted(args: argparse.Namespace) -> PipelineOnCluster:
    """The pipeline, the profile, the overrides and the workspace that ``args`` name; nothing is read yet."""
    from launch.submit.prepare import PipelineOnCluster

    return PipelineOnCluster(args.pipeline, cluster_of(args), tuple(args.set), args.workspace)


def note(text: str) -> None:
    """Say what is allowed and worth knowing."""
    import sys

    print(f"note: {text}", file=sys.stderr, flush=True)
