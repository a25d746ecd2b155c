"""Write event files of a run for TensorBoard (RUN/tensorboard/STAGE), start it, and add to them while it runs."""

from __future__ import annotations

import argparse
import getpass
import socket
import subprocess
import sys

from launch.cli import options

FOLLOW_SECONDS = 10.0
"""How often new reports are added."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_run(parser)
    parser.add_argument("--port", type=int, default=6006, help="port of TensorBoard on this machine (default: 6006)")
    parser.add_argument("--write-only", action="store_true", help="write the event files and end")


def run(args: argparse.Namespace) -> int:
    """Write; unless that is all, run TensorBoard until it ends or is interrupted."""
    from launch.status import boards

    found, plan, _ = options.open_run(args)
    made = boards.write(found, plan)
    directory = found.paths.boards
    host = socket.gethostname()
    lines = [f"event files: {directory}"]
    if not args.write_only and not args.json:
        lines += [
            f"TensorBoard: http://localhost:{args.port} (Ctrl-C ends it)",
            f"from another machine first: ssh -L {args.port}:localhost:{args.port} {getpass.getuser()}@{host}",
        ]
    options.print_result({"run": found.id, "directory": str(directory), "host": host}, lines, args.json)
    if args.write_only or args.json:
        return 0
    sys.stdout.flush()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", str(args.port)]
    with subprocess.Popen(command) as board:
        try:
            while True:
                try:
                    return board.wait(FOLLOW_SECONDS)
                except subprocess.TimeoutExpired:
                    for one in made:
                        one.follow()
        except BaseException:
            board.terminate()
            raise
