"""Show the jobs of a pipeline before any is queued: what runs where, on what, and what is already done."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from launch.base import paint
from launch.base.errors import InputError
from launch.cli import options

if TYPE_CHECKING:
    from launch.plan.model import Plan, Planned
    from launch.plan.power import GatePower

RUNS_ASKED = 5
"""Newest runs whose evaluations tell how metrics vary."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)
    parser.add_argument("--scripts", action="store_true", help="print the scripts of every job")
    parser.add_argument(
        "--check",
        action="store_true",
        help="look at limits, paths, secrets and disk, and let sbatch --test-only judge every script; no job is made",
    )

    parser.add_argument(
        "--sweep", action="append", default=[], metavar="KEY=V1,V2", help="plan every combination, and count their jobs"
    )


def run(args: argparse.Namespace) -> int:
    """Plan and print."""
    if args.sweep:
        return _sweep(args)
    planned = options.plan(args)
    if args.scripts:
        from launch.render import preview

        scripts = preview.preview(planned)
        value = {"run": preview.RUN, "attempt": preview.ATTEMPT, "stages": scripts}
        options.print_result(value, preview.lines(scripts), args.json)
        return 0
    if args.check:
        return _check(planned, as_json=args.json)
    from launch.plan import epochs, estimates, limits

    shown = epochs.with_steps(planned.plan, planned.workspace)
    known = (shown, planned.profile.profile, planned.workspace)
    found = estimates.estimates(*known)
    gates = _gates(planned)
    if args.json:
        from launch.plan import file
        from launch.status.plan import states

        more = {"states": states(planned.plan, planned.workspace), "estimates": [each.as_json() for each in found]}
        more["gates"] = [each.as_json() for each in gates]
        options.print_result({**file.to_json(shown), **more}, (), as_json=True)
    else:
        from launch.status.plan import print_plan

        print_plan(shown, planned.profile.profile, planned.workspace, options.fetch_command(args))
        if found:
            paint.out(["", estimates.show(found)])
        if gates:
            from launch.plan import power

            paint.out(["", power.show(gates)])
        notes = epochs.notes(planned.plan, planned.workspace)
        notes += limits.notes(planned.plan, planned.profile, planned.pipeline)
        tried = sorted({(stage.backend, stage.experimental) for stage in planned.plan.stages})
        notes += estimates.of_kept_saves(planned.plan, found)
        notes += [f"back end {backend} is experimental: {untried}" for backend, untried in tried if untried]
        for note in notes:
            print(f"  {note}")
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    estimates.refuse(*known, found)
    return 0


def _gates(planned: Planned) -> list[GatePower]:
    """What the gates can decide; of how metrics vary the last runs of this pipeline tell."""
    if not any(stage.settings.get("gate") for stage in planned.plan.stages):
        return []
    from launch.plan import power
    from launch.runs import rundir

    def plans() -> Iterator[Plan]:
        runs = [run for run in rundir.all_runs(planned.workspace.root) if run.workspace == planned.workspace]
        for run in runs[:RUNS_ASKED]:
            with contextlib.suppress(InputError, OSError, ValueError):  # a damaged run says nothing here
                if (plan := run.plan()).pipeline == planned.plan.pipeline:
                    yield plan

    return power.powers(planned.plan, planned.workspace, power.deviations(plans(), planned.workspace))


def _sweep(args: argparse.Namespace) -> int:
    """How many jobs the variants make together: equal stages are one."""
    from launch.base.text import table
    from launch.config import data_settings
    from launch.config.profile_file import locate, read_profile
    from launch.plan import sweep
    from launch.runs.rundir import workspace_for

    profile = read_profile(locate(args.cluster))
    workspace = workspace_for(profile.profile, args.workspace)
    known: dict[str, dict[str, bool]] = {}
    variants = []
    for variant in sweep.plans(args.pipeline, args.set, args.sweep, profile, workspace, data_settings.checked):
        for stage in variant.plan.stages:
            seen = known.setdefault(stage.name, {})
            if stage.fingerprint not in seen:
                seen[stage.fingerprint] = stage.store(workspace).seal.exists()
        if args.json:
            stages = {stage.name: stage.fingerprint for stage in variant.plan.stages}
            variants.append({"set": list(variant.options), "stages": stages})
        else:
            variants.append({})
    if args.json:
        sealed = {name: [one for one, done in seen.items() if done] for name, seen in known.items()}
        options.print_result({"variants": variants, "sealed": sealed}, (), as_json=True)
        return 0
    rows = [[name, str(len(seen)), str(sum(seen.values()))] for name, seen in known.items()]
    jobs = sum(len(seen) - sum(seen.values()) for seen in known.values())
    paint.out(table(("stage", "different", "sealed"), rows, right=(1, 2)))
    print(f"\n{len(variants)} variants, {jobs} jobs")
    return 0


def _check(planned: Planned, as_json: bool) -> int:
    """Print what was looked at; 1 where something would stop the chain."""
    from launch.config.profile import ExecutorKind
    from launch.runs import client
    from launch.site import preflight

    profile = planned.profile.profile
    secrets = (*profile.secrets, *planned.pipeline.pipeline.secrets)
    gateway = None if profile.executor is ExecutorKind.LOCAL else client.gateway(profile, secrets)
    return options.print_findings({"pipeline": planned.plan.pipeline}, preflight.findings(planned, gateway), as_json)
