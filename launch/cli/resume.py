"""Bring a run forward: sealed stages are kept, queued ones adopted, the rest is submitted. Twice changes nothing."""

from __future__ import annotations

import argparse

from launch.cli import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    common.add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Resume on Slurm or here, as the run's own profile says."""
    from jobs.core import redaction
    from launch import rundir, secrets

    found = rundir.find(args.run, args.workspace)
    profile = found.profile()
    names = tuple({*profile.secrets, *redaction.read(found.paths.secrets)})
    secrets.renew(found.paths, names)
    if profile.executor == "local":
        from launch.cli.run import advance as advance_here

        return advance_here(found, as_json=args.json)
    from launch.cli.submit import advance

    return advance(found, common.gateway(profile, names), as_json=args.json)
