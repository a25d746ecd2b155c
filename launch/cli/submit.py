"""Submit a pipeline as a chain of Slurm jobs and return; nothing of ours stays alive."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.plan.model import Planned
    from launch.plan.sweep import Sweep


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)


def run(args: argparse.Namespace) -> int:
    """Make a run, or one for each chain of a sweep, and submit every stage that is not sealed or queued already."""
    from launch.config import ranges
    from launch.plan.sweep import Sweep
    from launch.render import provenance
    from launch.runs import client, rundir, secret_files
    from launch.submit.advance import advance

    found = Sweep.read(args.pipeline, args.set)
    if found.axes:
        return _family(args, found)
    planned = options.plan(args)
    options.refuse_missing(planned, args)
    for note in ranges.notes(planned.pipeline):
        print(f"note: {note}", file=sys.stderr, flush=True)
    _refuse(planned, args)
    values = options.secrets(planned)
    gateway = client.gateway(planned.profile.profile, values)
    began = time.monotonic()
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    provenance.save(run, planned.plan, planned.profile, planned.pipeline)
    secret_files.write(run.paths, values)
    seconds = time.monotonic() - began
    return advance(run, planned.plan, planned.profile.profile, gateway, as_json=args.json, snapshot_seconds=seconds)


def _refuse(planned: Planned, args: argparse.Namespace, seen: Collection[str] = ()) -> None:
    """Raises InputError: what a partition, a GPU or a back end would refuse later. ``seen``: fingerprints of stages
    about which the back ends were asked before."""
    from launch.base.errors import InputError
    from launch.plan import limits
    from launch.render import dry_run

    profile = planned.profile.profile
    if profile.executor == "local":
        raise InputError(
            f"the profile {profile.name!r} has no Slurm", hint=f"overnight run {args.pipeline} --cluster {args.cluster}"
        )
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    if any(one.gpu_memory for one in profile.partitions.values()):  # else nothing is known that may be too small
        from launch.plan import estimates

        estimates.refuse(planned.plan, profile, planned.workspace)
    new = replace(planned.plan, stages=tuple(one for one in planned.plan.stages if one.fingerprint not in seen))
    for note in dry_run.refuse(new, profile, planned.workspace, planned.pipeline):
        print(f"note: {note}", file=sys.stderr, flush=True)


def _family(args: argparse.Namespace, found: Sweep) -> int:
    """Make the chains of a sweep and submit them; what several have in common is submitted once."""
    from launch.runs import client

    variants = families.plan(args, found)
    seen: set[str] = set()
    values: dict[str, str] = {}
    for variant in variants:
        _refuse(variant.planned, args, seen)
        seen.update(stage.fingerprint for stage in variant.plan.stages)
        values |= options.secrets(variant.planned)
    gateway = client.gateway(variants[0].planned.profile.profile, values)
    family = families.make(found, variants, values)
    return families.advance(family, gateway, as_json=args.json)
