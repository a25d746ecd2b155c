"""Show the jobs of a pipeline before any is queued: what runs where, on what, and what is already done."""

from __future__ import annotations

import argparse
import json

from launch.cli import common


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    common.add_pipeline(parser)
    parser.add_argument("--scripts", action="store_true", help="print the scripts of every job")


def run(args: argparse.Namespace) -> int:
    """Plan and print."""
    planned = common.plan(args)
    if args.scripts:
        from launch.cli.plan_scripts import print_scripts

        return print_scripts(planned, as_json=args.json)
    from launch import fit

    known = (planned.plan, planned.profile.profile, planned.workspace)
    found = fit.estimates(*known)
    if args.json:
        from launch import planfile
        from launch.show_plan import states

        more = {"states": states(planned.plan, planned.workspace), "estimates": [each.as_json() for each in found]}
        print(json.dumps({**planfile.to_json(planned.plan), **more}))
        fit.refuse(*known, found)
        return 0
    from launch.show_plan import print_plan

    print_plan(planned.plan, planned.profile.profile, planned.workspace, common.fetch_command(args))
    if found:
        print(f"\n{fit.show(found)}")
    fit.refuse(*known, found)
    return 0
