"""Send the metrics of a run's training to W&B or MLflow: one id a stage, over all of its starts and all calls."""

from __future__ import annotations

import argparse

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--to", required=True, choices=("wandb", "mlflow"), help="the tracker")
    parser.add_argument("--project", metavar="NAME", help="project or experiment there (default: the pipeline's name)")


def run(args: argparse.Namespace) -> int:
    """Tell what is new, and print what the tracker knows."""
    from launch.status import trackers

    found, plan, _ = options.open_run(args)
    known = trackers.tell(found, plan, args.to, args.project or plan.pipeline)
    lines = [f"{stage}: {args.to} id {told['id']}, up to step {told['step']}" for stage, told in known.items()]
    options.print_result({"run": found.id, "to": args.to, "stages": known}, lines, args.json)
    return 0
