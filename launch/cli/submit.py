"""Submit a pipeline as a chain of Slurm jobs and return; nothing of ours stays alive."""

from __future__ import annotations

import argparse
import sys

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser)


def run(args: argparse.Namespace) -> int:
    """Make a run and submit every stage that is not sealed or queued already."""
    from launch.submit import start
    from launch.submit.advance import advance

    def note(text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    begun = start.on_slurm(options.wanted(args), note)
    return advance(
        begun.run, begun.plan, begun.profile, begun.gateway, as_json=args.json, snapshot_seconds=begun.seconds
    )
