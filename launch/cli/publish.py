"""Put the export of a run on a hub: private unless you say otherwise, refused where a critical gate was not passed."""

from __future__ import annotations

import argparse
import re
import sys

from launch.cli import options

_TO = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)\Z", re.ASCII)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument(
        "--to", required=True, metavar="hf:ORG/NAME", help="the repository; created if it does not exist"
    )
    parser.add_argument("--stage", metavar="STAGE", help="the export, where the run has several")
    parser.add_argument("--public", action="store_true", help="visible to everyone (default: private)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--despite", action="append", default=[], metavar="GATE", help="publish though this gate was not passed"
    )


def run(args: argparse.Namespace) -> int:
    """Publish; 1 where the answer was no."""
    from launch.base.errors import InputError
    from launch.base.text import count
    from launch.inputs import upload
    from launch.publish import release

    named = _TO.match(args.to)
    if named is None:
        raise InputError(f"{args.to!r}: write hf:ORG/NAME", where="--to")
    found, plan, _ = options.open_run(args)
    made = release.of_run(found, plan, args.stage)
    release.refuse(made, args.despite, found)
    size = f"{count(len(made.files), 'file')}, {made.bytes / 1e6:,.1f} MB"
    seen = "public" if args.public else "private"
    if not args.yes:
        if not sys.stdin.isatty():
            raise InputError("there is nobody to ask", hint="--yes")
        answer = input(f"{size} of stage {made.stage} to {named[1]} ({seen}) on {upload.endpoint()}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was published")
            return 1
    card = made.card(args.despite).encode()
    files = {name: card if name == release.CARD else made.output / name for name in made.files}
    pushed = upload.push(named[1], files, f"Overnight, run {found.id}, stage {made.stage}", args.public)
    value = {"run": found.id, "stage": made.stage, "repo": pushed.repo, "endpoint": pushed.endpoint,
             "commit": pushed.commit, "private": pushed.private, "files": len(made.files), "bytes": made.bytes,
             "removed": list(pushed.removed), "despite": args.despite}  # fmt: skip
    lines = [f"{size} to {pushed.repo}, {'private' if pushed.private else 'public'}, commit {pushed.commit}"]
    lines += [f"removed there: {', '.join(pushed.removed)}"] if pushed.removed else []
    options.print_result(value, lines, args.json)
    return 0
