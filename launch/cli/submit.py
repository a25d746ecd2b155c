"""Submit a pipeline as a chain of Slurm jobs and return; no process of Overnight stays alive."""

from __future__ import annotations

import argparse

from launch.cli import families, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)


def run(args: argparse.Namespace) -> int:
    """Make a run, or one for each chain of a sweep, and submit every stage that is not sealed or queued already."""
    from launch.submit import start
    from launch.submit.advance import advance

    if options.is_swept(args):
        return _family(args)
    begun = start.on_slurm(options.wanted(args), options.note)
    return advance(
        begun.run, begun.plan, begun.profile, begun.gateway, as_json=args.json, snapshot_seconds=begun.seconds
    )


def _family(args: argparse.Namespace) -> int:
    """Make the chains of a sweep and submit them; what several have in common is submitted once."""
    from launch.plan.sweep import Sweep
    from launch.runs import client
    from launch.submit import prepare, start

    found = Sweep.read(args.pipeline, args.set)
    variants = families.plan(args, found)
    seen: set[str] = set()
    values: dict[str, str] = {}
    for variant in variants:
        start.refuse(variant.planned, options.wanted(args), options.note, seen)
        seen.update(stage.fingerprint for stage in variant.plan.stages)
        values |= prepare.secrets(variant.planned)
    gateway = client.gateway(variants[0].planned.profile.profile, values)
    family = families.make(found, variants, values)
    return families.advance(family, gateway, as_json=args.json)
