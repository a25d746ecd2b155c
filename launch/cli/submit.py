"""Submit a pipeline as a chain of Slurm jobs and return; nothing of ours stays alive."""

from __future__ import annotations

import argparse
import sys
import time

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)


def run(args: argparse.Namespace) -> int:
    """Make a run and submit every stage that is not sealed or queued already."""
    from launch.base.errors import InputError
    from launch.config import ranges
    from launch.plan import limits
    from launch.render import dry_run, provenance
    from launch.runs import client, rundir, secret_files
    from launch.submit.advance import advance

    planned = options.plan(args)
    profile = planned.profile.profile
    if profile.executor == "local":
        raise InputError(
            f"the profile {profile.name!r} has no Slurm", hint=f"overnight run {args.pipeline} --cluster {args.cluster}"
        )
    options.refuse_missing(planned, args)
    limits.refuse(planned.plan, planned.profile, planned.pipeline)
    if any(one.gpu_memory for one in profile.partitions.values()):  # else nothing is known that may be too small
        from launch.plan import estimates

        estimates.refuse(planned.plan, profile, planned.workspace)
    for note in ranges.notes(planned.pipeline):
        print(f"note: {note}", file=sys.stderr, flush=True)
    for note in dry_run.refuse(planned.plan, profile, planned.workspace, planned.pipeline):
        print(f"note: {note}", file=sys.stderr, flush=True)
    values = options.secrets(planned)
    gateway = client.gateway(profile, values)
    began = time.monotonic()
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    provenance.save(run, planned.plan, planned.profile, planned.pipeline)
    secret_files.write(run.paths, values)
    snapshot_seconds = time.monotonic() - began
    return advance(run, planned.plan, profile, gateway, as_json=args.json, snapshot_seconds=snapshot_seconds)
