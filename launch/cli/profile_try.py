"""``overnight profile test``: submit the probes, wait with progress, show what works, and amend the profile."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

from launch.base.errors import InputError, OvernightError
from launch.cli import options
from launch.cli.progress import Output, shown
from launch.config.profile import ExecutorKind
from launch.config.profile_file import ProfileFile, locate, read_profile
from launch.runs import client
from launch.runs.rundir import workspace_for
from launch.site import finding, show
from launch.site.probe import amend, results
from launch.site.probe import run as probe
from launch.site.probe.amend import ProfileChange
from launch.site.probe.results import ProbeResult
from launch.site.probe.run import Probe


def run(args: argparse.Namespace) -> int:
    """1 where anything fails."""
    if args.minutes is not None and args.minutes < 1:
        raise InputError(f"--minutes {args.minutes}: must be 1 or more")
    found = read_profile(locate(args.name))
    if found.profile.executor is ExecutorKind.LOCAL:
        raise InputError(f"the profile {found.profile.name!r} has no Slurm to send a job to")
    gateway = client.gateway(found.profile, environment=probe.environment())
    workspace = workspace_for(found.profile, args.workspace)
    probes = probe.prepare(found, workspace, probe.plans(found, args.minutes, args.skip))
    with probe.cancelled_on_leaving(probes, gateway):
        probe.submit(probes, found, gateway)
        if not args.json and (jobs := [f"job {one.job} by {one.plan.executor}" for one in probes if one.job]):
            print(f"{', '.join(jobs)}: submitted; Ctrl-C cancels", file=sys.stderr, flush=True)
        with shown(quiet=args.json or not sys.stderr.isatty()) as output:
            limit = None if args.wait is None else args.wait * 60
            probe.wait(probes, gateway, found.profile.poll_seconds, limit, partial(_show, output))
    probe.collect(probes)
    verdicts = [results.judge(found, one) for one in probes]
    changes = list(dict.fromkeys(change for one in verdicts for change in one.changes))
    amended = None if args.no_amend else _amended(found, changes, verdicts)
    failed = any(one.failed for one in verdicts)
    if not failed:
        probe.remove(probes)
    if args.json:
        tried = [
            {
                "executor": one.probe.plan.executor,
                "job": one.probe.job or None,
                "directory": str(one.probe.paths.root) if failed else None,
                "findings": [each.as_json() for each in one.findings],
            }
            for one in verdicts
        ]
        entries = [{"key": ".".join(one.path), "value": one.value, "why": one.why} for one in changes]
        value = {"profile": found.profile.name, "path": str(found.path), "ok": not failed, "probes": tried}
        options.print_result({**value, "changes": entries, "amended": amended}, (), as_json=True)
        return 1 if failed else 0
    for one in verdicts:
        kept = f": files in {one.probe.paths.root}" if failed else ""
        print(f"\nexecutor {one.probe.plan.executor}{kept}")
        print("\n".join(finding.table(list(one.findings))))
    _tell(found, changes, amended, args.no_amend)
    return 1 if failed else 0


def _show(output: Output, probes: Sequence[Probe]) -> None:
    states = [f"{one.job} {one.row.state.lower() if one.row else 'submitted'}" for one in probes if one.job]
    output.update("jobs", sum(one.over for one in probes), len(probes), ", ".join(states))


def _amended(found: ProfileFile, changes: Sequence[ProfileChange], verdicts: Sequence[ProbeResult]) -> str | None:
    """The changes as a diff; None where nothing is written: a packaged profile is the same for all users."""
    if show.is_packaged(found.path) or not any(one.probe.nodes for one in verdicts):
        return None
    old = found.path.read_text(encoding="utf-8")
    try:
        new = amend.amended(old, changes, results.tested(verdicts, time.time()))
        amend.write(found.path, new)
    except (OvernightError, OSError) as error:
        print(f"{found.path} was left as it is: {error}", file=sys.stderr)
        return None
    return amend.diff(old, new, found.path)


def _tell(found: ProfileFile, changes: Sequence[ProfileChange], amended: str | None, asked_not_to: bool) -> None:
    if amended is not None:
        print(f"\n{found.path}: amended\n{amended}", end="")
        return
    if changes:
        why = "--no-amend" if asked_not_to else "not written"
        print(f"\nwould go into a profile of yours that extends {found.profile.name} ({why}):")
        for change in changes:
            print(f"  {'.'.join(change.path)}: {change.value}  # {change.why}")
