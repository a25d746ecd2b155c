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
    from launch.plan.judging import JudgeCost
    from launch.plan.model import Plan, Planned
    from launch.plan.power import GatePower
    from launch.plan.sweep import Sweep

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
    if options.is_swept(args):
        from launch.plan.sweep import Sweep

        return _sweep(args, Sweep.read(args.pipeline, args.set, args.sweep))
    planned = options.plan(args)
    if args.scripts:
        from launch.render import preview

        scripts = preview.preview(planned)
        value = {"run": preview.RUN, "attempt": preview.ATTEMPT, "stages": scripts}
        options.print_result(value, preview.lines(scripts), args.json)
        return 0
    if args.check:
        return _check(planned, as_json=args.json)
    from launch.config import ranges
    from launch.plan import epochs, estimates, limits

    shown = epochs.with_steps(planned.plan, planned.workspace)
    known = (shown, planned.profile.profile, planned.workspace)
    estimated = estimates.estimates(*known)
    gates = _gates(planned)
    judged = _judged(planned)
    if args.json:
        from launch.plan import file
        from launch.status.plan import states

        more = {"states": states(planned.plan, planned.workspace), "estimates": [each.as_json() for each in estimated]}
        more["gates"] = [each.as_json() for each in gates]
        more["judges"] = [each.as_json() for each in judged]
        options.print_result({**file.to_json(shown), **more}, (), as_json=True)
    else:
        from launch.status.plan import print_plan

        print_plan(shown, planned.profile.profile, planned.workspace, options.fetch_command(args))
        if estimated:
            paint.out(["", estimates.show(estimated)])
        if gates:
            from launch.plan import power

            paint.out(["", power.show(gates)])
        if judged:
            from launch.plan import judging

            paint.out(["", judging.show(judged)])
        notes = epochs.notes(planned.plan, planned.workspace)
        notes += ranges.notes(planned.pipeline) + limits.notes(planned.plan, planned.profile, planned.pipeline)
        tried = sorted({(stage.backend, stage.experimental) for stage in planned.plan.stages})
        notes += estimates.of_kept_saves(planned.plan, estimated)
        notes += [f"back end {backend} is experimental: {untried}" for backend, untried in tried if untried]
        for note in notes:
            print(f"  {note}")
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    estimates.refuse(*known, estimated)
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


def _judged(planned: Planned) -> list[JudgeCost]:
    """What judges are asked."""
    if not planned.pipeline.pipeline.judges:
        return []
    from launch.plan import judging

    return judging.costs(planned.plan, planned.pipeline.pipeline, planned.workspace)


def _sweep(args: argparse.Namespace, found: Sweep) -> int:
    """How many jobs the variants make together: equal stages are one."""
    from launch.base.text import table
    from launch.config import data_settings, ranges
    from launch.config.profile_file import locate, read_profile
    from launch.plan import sweep
    from launch.runs.rundir import workspace_for

    profile = read_profile(locate(args.cluster))
    workspace = workspace_for(profile.profile, args.workspace)
    known: dict[str, dict[str, bool]] = {}
    variants = []
    told: dict[str, None] = {}
    cost = sweep.SweepCost()
    planned = found.variants(profile, workspace, data_settings.checked)
    for variant in planned if args.sweep else sweep.distinct(found, planned):
        for stage in variant.plan.stages:
            seen = known.setdefault(stage.name, {})
            if stage.fingerprint not in seen:
                seen[stage.fingerprint] = stage.store(workspace).seal.exists()
        told |= dict.fromkeys(ranges.notes(variant.planned.pipeline))
        if found.keys is not None:
            cost.add(variant)
        if args.json:
            stages = {stage.name: stage.fingerprint for stage in variant.plan.stages}
            variants.append({"set": list(variant.options), "stages": stages})
        else:
            variants.append({})
    if args.json:
        sealed = {name: [one for one, done in seen.items() if done] for name, seen in known.items()}
        hours = {"least": cost.least, "most": cost.most, "unknown": list(cost.unknown)}
        value = {"variants": variants, "sealed": sealed, "gpu_hours": hours, "notes": list(told)}
        options.print_result(value, (), as_json=True)
    else:
        rows = [[name, str(len(seen)), str(sum(seen.values()))] for name, seen in known.items()]
        jobs = sum(len(seen) - sum(seen.values()) for seen in known.values())
        paint.out(table(("stage", "different", "sealed"), rows, right=(1, 2)))
        estimated = f", {cost} by the estimate" if cost.most else ""
        print(f"\n{len(variants)} variants, {jobs} jobs{estimated}")
        for note in [*told, *cost.notes(found)]:
            print(f"  {note}")
    cost.refuse(found)
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
