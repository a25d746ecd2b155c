"""Bring base models and data sources into the workspace, pinned and sealed; jobs run without the internet."""

from __future__ import annotations

import argparse

from launch.cli import options
from launch.submit import prepare


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_pipeline(parser, otherwise="local")
    parser.add_argument("--update", action="store_true", help="ask the hub again which commit a branch names")


def run(args: argparse.Namespace) -> int:
    """Fetch what is missing, verify what is there."""
    from launch.cli.progress import fetching, shown
    from launch.inputs import fetch
    from launch.plan import gather
    from launch.runs.rundir import remember

    pipeline, _, workspace = prepare.read(options.wanted(args))
    items = list({item.pin_key: item for item in gather.fetch_items(pipeline).values()}.values())
    again = f"overnight fetch {args.pipeline}" + (f" --workspace {args.workspace}" if args.workspace else "")
    with shown(quiet=args.json) as output:
        done = fetch.fetch(items, workspace, progress=fetching(output), again=again, update=args.update)
    remember(workspace)
    values = [
        {
            "name": one.item.name,
            "request": one.item.request,
            "store": str(one.store.root),
            "bytes": one.seal.bytes,
            "content": one.seal.content,
            "new": one.new,
        }
        for one in done
    ]
    lines = [
        f"{one.item.name:12} {'fetched' if one.new else 'already here, verified'}: {one.item.request} "
        f"({one.seal.bytes / 1e6:.1f} MB)"
        for one in done
    ]
    options.print_result(
        {"items": values}, lines or ["nothing to fetch: the pipeline reads files of yours only"], args.json
    )
    return 0
