"""Measure a model, a server or stored answers on this machine, outside of a pipeline."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.cli import options

SECONDS = 7 * 24 * 3600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="a Hugging Face directory, or http://... of a server"
    )
    parser.add_argument(
        "--tasks", type=Path, metavar="FILE", required=True, help="YAML: tasks as in a pipeline; their data are paths"
    )
    parser.add_argument(
        "--against", type=Path, metavar="CHECKPOINT", help="measure this one, too, and the change from it"
    )
    parser.add_argument("--answers", type=Path, metavar="FILE", help='score these: a {"id", "answer"} a line; no model')
    parser.add_argument("--model", metavar="NAME", help="what the model is called at the server")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("evaluation"), help="default: %(default)s")
    parser.add_argument("--python", metavar="PATH", help="interpreter with torch and transformers; default: this one")
    parser.add_argument("--json", action="store_true", help="print machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, and end with 1 where a gate stops it."""
    import sys

    from launch.base.errors import InputError
    from launch.config import tasks_file
    from launch.status import results

    asked = tasks_file.read_tasks(args.tasks, compares=args.against is not None).asked()
    asked["output"] = str(args.output.absolute())
    given = args.checkpoint
    if (given is None) == (args.answers is None):
        raise InputError("name a checkpoint or a server, or --answers FILE", hint="overnight evaluate --help")
    if args.answers is not None:
        asked["settings"]["answers"] = str(args.answers.absolute())
    elif given.startswith(("http://", "https://")):
        if args.model is None:
            raise InputError("a server needs --model NAME")
        asked["settings"] |= {"server": given, "model": args.model}
    else:
        asked["checkpoint"] = str(Path(given).absolute())
    if args.against is not None:
        if "checkpoint" not in asked:
            _check_against(asked["settings"]["tasks"])
        asked["against"] = str(args.against.absolute())
    found = _ask(asked, args.python or sys.executable)
    if "error" in found:
        raise InputError(found["error"])
    measured = results.of_tasks("now", "before" if args.against else None, found["tasks"])
    lines = [*results.lines(measured), "", f"all numbers: {found['file']}", *_gates(found)]
    options.print_result(found, lines, args.json)
    return 1 if "gates" in found else 0


def _check_against(tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError: a task cannot hold answers that come from no checkpoint against one."""
    from launch.base.errors import InputError

    for name, task in tasks.items():
        by = task.get("judged_by") or {}
        if by.get("form") != "pairwise" or task.get("against") == "references":
            raise InputError(
                f"task {name}: --against measures a checkpoint, which is shown other tokens than a server or stored "
                "answers: its answers can be held against theirs by a pairwise judge only"
            )


def _gates(found: Mapping[str, Any]) -> list[str]:
    return [f"gate: {found['gates']}"] if "gates" in found else []


def _ask(asked: dict[str, Any], python: str) -> dict[str, Any]:
    """The job's answer; what it shows on its way goes to the terminal."""
    import json
    import os
    import subprocess
    import tempfile

    from jobs.core import strict
    from launch.base.errors import InputError
    from launch.inputs import toolkit

    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(asked, file)
        file.flush()
        command = [python, str(toolkit.installed_boot()), "evaluate", file.name]
        done = subprocess.run(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"the evaluation ended with exit code {done.returncode}: see above")
    found: dict[str, Any] = strict.parse(done.stdout.splitlines()[-1])
    return found
