"""Find what a run has left behind or lost, and name or run the command that fixes it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from launch.base import paint, waiting
from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--fix", action="store_true", help="cancel such jobs and remove a stale lock, without asking")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if there are none or all are fixed, 4 if the cluster did not respond, else 1."""
    from launch.base.errors import ClusterUnreachable
    from launch.runs import client
    from launch.submit import repair
    from launch.submit.repair import LeftoverKind

    found, plan, profile = options.open_run(args)
    gateway = None if profile.executor == "local" else client.gateway(profile)
    findings, then = repair.examine(found, plan, gateway)
    safe = [finding for finding in findings if finding.is_safe]
    if not args.json:
        paint.out(f"{finding.kind}: {finding.text}\n  {finding.command}" for finding in findings)
        if not findings:
            paint.out([f"run {found.id}: nothing is wrong", f"next: {then}"])
    fixed = []
    if safe and (args.fix or (not args.json and _agreed(len(safe)))):
        fixed = repair.fix(found, gateway, findings)
    value = [{**asdict(finding), "fixed": finding in fixed} for finding in findings]
    lines = [f"fixed: {len(fixed)}"] if fixed else []
    options.print_result({"run": found.id, "findings": value, "next": then}, lines, args.json)
    if any(finding.kind is LeftoverKind.SILENT for finding in findings):
        return ClusterUnreachable.exit_code
    return 0 if len(fixed) == len(findings) else 1


def _agreed(count: int) -> bool:
    """Ask the user; no where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    with waiting.paused():
        return input(f"cancel or remove these ({count})? [y/N] ").strip().lower() in ("y", "yes")
