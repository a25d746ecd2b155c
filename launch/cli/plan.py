"""Show the jobs of a pipeline before any is queued: what runs where, on what, and what is already done."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from launch.base import paint
from launch.cli import options
from launch.config.fields import RESOURCE_KEYS
from launch.submit import prepare

if TYPE_CHECKING:
    from launch.plan.model import Planned
    from launch.plan.sweep import Sweep
    from launch.site.finding import Finding


TAKEN_BY_ALL = frozenset({
    *RESOURCE_KEYS, "kind", "backend", "executor", "seed", "checkpoint", "data", "steps", "epochs", "lr", "batch_size",
    "tasks", "compare_to", "gate",
})  # fmt: skip
"""Keys of a stage that each back end takes, or that are none of its business."""


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
    wanted = options.wanted(args)
    planned = prepare.plan(wanted)
    if args.scripts:
        from launch.render import preview

        scripts = preview.preview(planned)
        value = {"run": preview.RUN, "attempt": preview.ATTEMPT, "stages": scripts}
        options.print_result(value, preview.lines(scripts), args.json)
        return 0
    if args.check:
        return _check(planned, as_json=args.json)
    from launch.status import outlook

    found = outlook.of(planned)
    if args.json:
        from launch.plan import file

        more = {"states": found.states, "estimates": [each.as_json() for each in found.estimates]}
        more["evaluations"] = [each.as_json() for each in found.evaluations]
        more["gates"] = [each.as_json() for each in found.gates]
        more["judges"] = [each.as_json() for each in found.judges]
        options.print_result({**file.to_json(found.shown), **more}, (), as_json=True)
    else:
        paint.out(outlook.lines(found, wanted.command("fetch")))
    _refuse_settings(planned)
    found.refuse()
    return 0


def _refuse_settings(planned: Planned) -> None:
    """Raises InputError: a setting that its back end would refuse. No back end is asked where stages have
    only keys that each takes: the plan stays as quick as it is."""
    written = planned.pipeline.data["stages"]
    told = {name for name, keys in written.items() if isinstance(keys, dict) and keys.keys() - TAKEN_BY_ALL}
    stages = tuple(stage for stage in planned.plan.stages if stage.name in told and stage.backend != "data")
    if not stages:
        return
    from launch.render import dry_run

    dry_run.refuse_settings(
        replace(planned.plan, stages=stages), planned.profile.profile, planned.workspace, planned.pipeline
    )


def _sweep(args: argparse.Namespace, found: Sweep) -> int:
    """How many jobs the variants make together: equal stages are one."""
    from launch.base.text import table
    from launch.config import data_settings, ranges
    from launch.plan import sweep

    profile, workspace = options.site(args)
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
    found = [*_data(planned), *_options(planned), *preflight.findings(planned, gateway)]
    return options.print_findings({"pipeline": planned.plan.pipeline}, found, as_json)


def _options(planned: Planned) -> Iterator[Finding]:
    """What the back ends, each in its environment, say of the settings of the stages."""
    from launch.base.errors import InputError
    from launch.render import dry_run
    from launch.site.finding import Finding, Level

    try:
        notes = dry_run.refuse(planned.plan, planned.profile.profile, planned.workspace, planned.pipeline)
    except InputError as error:
        yield Finding(Level.FAIL, "settings", error.message.partition("\n")[0], error.where or "")
        return
    yield Finding(Level.OK, "settings", "; ".join(["the back ends take them", *notes]))


def _data(planned: Planned) -> Iterator[Finding]:
    """The rows of the user's files, as a data stage would read them."""
    from data_prep import recognise
    from data_prep.common.errors import DataError
    from launch.config.stages import DataStage, PathSource
    from launch.site.finding import Finding, Level

    pipeline = planned.pipeline
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, DataStage) or planned.plan.find(name).store(planned.workspace).seal.exists():
            continue
        source = pipeline.pipeline.source_of(name)
        if not isinstance(source, PathSource):
            continue
        try:
            rows = recognise.readable(stage.kind, pipeline.resolve(source.path), prepared=stage.prepare is not None)
        except DataError as error:
            yield Finding(Level.FAIL, f"data: {name}", str(error), pipeline.where("stages", name, "from"))
        else:
            if rows:
                yield Finding(Level.OK, f"data: {name}", f"{rows:,} rows can be read")
