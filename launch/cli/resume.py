"""Bring a run forward: sealed stages are kept, queued ones adopted, the rest is submitted. Twice changes nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from launch.cli import common

if TYPE_CHECKING:
    from launch.rundir import Run
    from launch.slurm.gateway import Gateway

BUSY_SECONDS = 120.0
"""How long the end of a job waits for another that submits at the same moment."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    common.add_run(parser)
    parser.add_argument(
        "--from-job", metavar="ID",
        help="as the last act of that job of the run: submit what waits for room, try nothing again",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Resume on Slurm or here, as the run's own profile says."""
    from jobs.core import redaction
    from launch import rundir, secrets

    found = rundir.find(args.run, args.workspace)
    profile = found.profile()
    names = tuple({*profile.secrets, *redaction.read(found.paths.secrets)})
    if args.from_job:
        return _from_job(found, common.gateway(profile, names), args.from_job, args.json)
    secrets.renew(found.paths, names)
    if profile.executor == "local":
        from launch.cli.run import advance as advance_here

        return advance_here(found, as_json=args.json)
    from launch.cli.submit import advance

    return advance(found, common.gateway(profile, names), as_json=args.json)


def _from_job(run: Run, gateway: Gateway, job: str, as_json: bool) -> int:
    import time

    from launch.cli.submit import advance
    from launch.rundir import RunBusy

    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return advance(run, gateway, as_json=as_json, ending=job)
        except RunBusy:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)
