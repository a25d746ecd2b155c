"""Remove what no run of a workspace needs: code snapshots, results that no run names, incomplete leftovers."""

from __future__ import annotations

import argparse

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_workspace(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument(
        "--keep-days",
        type=float,
        default=30.0,
        metavar="N",
        help="keep what was changed in the last N days (default 30)",
    )


def run(args: argparse.Namespace) -> int:
    """Remove, and say what and how much."""
    from launch.base.errors import InputError
    from launch.runs import gc, rundir

    if not args.keep_days >= 0:
        raise InputError(f"--keep-days {args.keep_days}: must be 0 or more")
    workspace = rundir.workspace_for(None, args.workspace)
    if not workspace.root.is_dir():
        raise InputError(f"there is no workspace {workspace.root}", hint="choose one: --workspace DIR")
    removed, found = gc.collect(workspace, args.keep_days, args.dry_run)
    total = sum(one.bytes for one in removed)
    values = [{"path": str(one.path), "reason": one.reason, "bytes": one.bytes} for one in removed]
    value = {"dry_run": args.dry_run, "bytes": total, "removed": values, "unknown": list(found.unknown)}
    lines = [f"  {one.reason:18} {one.bytes / 1e6:10.1f} MB  {one.path}" for one in removed]
    if found.unknown:
        lines.append(
            f"results are left alone: no plan can be read of {', '.join(found.unknown)} (being made, or broken)"
        )
    lines.append(f"{'would free' if args.dry_run else 'freed'} {total / 1e6:.1f} MB in {workspace.root}")
    options.print_result(value, lines, args.json)
    return 0
