"""Continue a run: sealed stages are kept, queued ones adopted, the rest is submitted. Repeating it changes nothing."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from launch.cli import families, options

if TYPE_CHECKING:
    from launch.config.profile import Profile
    from launch.plan.model import Plan
    from launch.runs.family import Family
    from launch.runs.rundir import Run

BUSY_SECONDS = 120.0
"""How long the end of a job waits for another that submits at the same moment, and then for room in the queue."""

OF_THIS_JOB = (
    "TMPDIR", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK", "OVERNIGHT_LINK", "OVERNIGHT_NODES", "OVERNIGHT_MASTER_ADDR", "OVERNIGHT_MASTER_PORT",
    "OVERNIGHT_STAY", "OVERNIGHT_ENTERED", "OVERNIGHT_TOKEN",
)  # fmt: skip
"""Variables that Slurm, a site's prologue or host.sh has set for one job: the next one must not get them from it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument(
        "--from-job",
        metavar="ID",
        help="as the last act of that job of the run: submit what waits for room, try nothing again",
    )


def run(args: argparse.Namespace) -> int:
    """Resume on Slurm or here, as the run's own profile says."""
    from jobs.core import redaction
    from launch.inputs import toolkit
    from launch.runs import client, secret_files
    from launch.submit import changes

    if (family := families.named(args)) is not None:
        return _family(family, args.json)
    found, plan, profile = options.open_run(args)
    names = tuple({*profile.secrets, *redaction.read(found.paths.secrets)})
    if args.from_job:
        return _from_job(found, plan, profile, names, args.from_job, args.json)
    toolkit.refuse_changed(found.paths.toolkit)
    changes.refuse_data(found, plan)
    if (changed := changes.of_pipeline(found)) is not None:
        print(f"note: {changed}", file=sys.stderr, flush=True)
    for one in changes.in_vain(found, plan):
        print(f"note: {one}", file=sys.stderr, flush=True)
    secret_files.renew(found.paths, names)
    if profile.executor == "local":
        from launch.cli.run import advance as advance_here

        return advance_here(found, as_json=args.json)
    from launch.submit.advance import advance

    return advance(found, plan, profile, client.gateway(profile, names), as_json=args.json)


def _family(family: Family, as_json: bool) -> int:
    """Resume every chain of a sweep."""
    from jobs.core import redaction
    from launch.inputs import toolkit
    from launch.runs import client, secret_files

    runs = family.runs
    profile = runs[0].profile()
    names = tuple({*profile.secrets, *(name for run in runs for name in redaction.read(run.paths.secrets))})
    for run in runs:
        toolkit.refuse_changed(run.paths.toolkit)
        secret_files.renew(run.paths, names)
    if profile.executor == "local":
        from launch.cli.run import family_here

        return family_here(family, as_json=as_json)
    return families.advance(family, client.gateway(profile, names), as_json=as_json)


def _from_job(run: Run, plan: Plan, profile: Profile, names: tuple[str, ...], job: str, as_json: bool) -> int:
    import os
    import time

    from launch.runs import client
    from launch.runs import family as known
    from launch.runs.journal import History
    from launch.runs.rundir import RunBusy
    from launch.submit.advance import TRY_AGAIN, advance

    for name in OF_THIS_JOB:
        os.environ.pop(name, None)
    gateway = client.gateway(profile, names)
    end, pause = time.monotonic() + BUSY_SECONDS, 1.0
    while True:
        try:
            code = 0
            if profile.rolling is not None or History.read(run.journal).deferred:
                code = advance(run, plan, profile, gateway, as_json=as_json, ending=job)
            if (family := known.of_run(run)) is not None:
                code = families.advance(family, gateway, as_json=as_json, ending=job) or code
            if code != TRY_AGAIN or time.monotonic() > end:
                return code
            pause = min(2 * pause, 30.0)
        except RunBusy:
            if time.monotonic() > end:
                raise
        time.sleep(pause)
