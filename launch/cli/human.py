"""Let people judge the answers of two models: make a sheet for the browser, and count what they answered."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.runs.rundir import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    common = argparse.ArgumentParser(add_help=False)
    options.add_workspace(common)
    common.add_argument("--pairs", metavar="STAGE:STAGE", help="the two models, by stage: sft:dpo")
    common.add_argument(
        "--output", type=Path, metavar="DIR", help="directory of the sheet (default: people/ in the run)"
    )

    make = actions.add_parser("make", parents=[common], help="write sheet.html, sheet.csv and the key to them")
    make.add_argument("run", nargs="?", metavar="RUN", help="beginning of a run id (default: the newest run)")
    make.add_argument("--task", metavar="NAME", help="task of the evaluations whose answers are judged")
    make.add_argument("--n", type=int, default=60, metavar="N", help="prompts (default 60)")
    make.add_argument("--raters", type=int, default=3, metavar="N", help="raters (default 3)")
    make.add_argument("--seed", type=int, metavar="N", help="for the same sheet again (default: another each time)")

    read = actions.add_parser("read", parents=[common], help="check and count answers.json of the raters")
    read.add_argument("run", metavar="RUN", help="beginning of a run id")
    read.add_argument("answers", nargs="+", type=Path, metavar="ANSWERS", help="what the raters saved, a file each")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    return {"make": _make, "read": _read}[args.action](args)


def _make(args: argparse.Namespace) -> int:
    from launch.base.errors import InputError
    from launch.people import answers, pairs, sheet

    names = _names(args.pairs)
    for option, value in (("--n", args.n), ("--raters", args.raters)):
        if value < 1:
            raise InputError(f"{option} {value}: must be at least 1")
    found, plan, _ = options.open_run(args)
    directory = answers.directory_of(found.paths.people, args.output, names)
    seed = args.seed if args.seed is not None else secrets.randbits(63)
    made = sheet.draw(pairs.of_run(plan, found.workspace, names, args.task), names, args.n, args.raters, seed)
    sheet.write(directory, made)
    page, table, key = (directory / name for name in (sheet.SHEET, sheet.TABLE, sheet.KEY))
    lines = [
        f"sheet: {page} ({len(made.shown['items'])} pairs for each of {args.raters} raters)",
        f"for a spreadsheet: {table}",
        f"key, not for the raters: {key}",
        f"next: overnight human read {found.id} answers-1.json ...",
    ]
    value = {"run": found.id, "sheet": str(page), "table": str(table), "key": str(key), "digest": made.key["sheet"]}
    options.print_result(value, lines, args.json)
    return 0


def _read(args: argparse.Namespace) -> int:
    from launch.base.errors import InputError
    from launch.people import answers, sheet

    found, _, _ = options.open_run(args)
    directory = _directory(args, found)
    key = answers.read_key(directory / sheet.KEY)
    given: dict[int, dict[str, tuple[str, str]]] = {}
    for path in args.answers:
        rater, own = answers.read(path, key)
        if rater in given:
            raise InputError(f"{path}: a second file of rater {rater}")
        given[rater] = own
    counted = answers.count(key, given)
    where = answers.write(directory, counted)
    value = {"run": found.id, "file": str(where), **answers.as_json(counted)}
    options.print_result(value, [*answers.lines(counted), f"also in {where}"], args.json)
    return 0


def _directory(args: argparse.Namespace, found: Run) -> Path:
    """Of the sheet that the answers are to. Raises InputError: none, or several, and no word which."""
    from launch.base.errors import InputError
    from launch.people import answers

    if args.output is not None or args.pairs is not None:
        names = ("", "") if args.pairs is None else _names(args.pairs)
        return answers.directory_of(found.paths.people, args.output, names)
    made = answers.sheets(found.paths.people)
    if len(made) != 1:
        several = ", ".join(path.name for path in made)
        said = f"several sheets: {several}; choose with --pairs" if made else "no sheet has been made of this run"
        raise InputError(said, hint="overnight human make --help")
    return made[0]


def _names(text: str | None) -> tuple[str, str]:
    from launch.base.errors import InputError

    first, colon, second = (text or "").partition(":")
    if not colon or not first or not second or first == second:
        raise InputError(f"--pairs {text or ''}: write the two stages with a colon between them: --pairs sft:dpo")
    return first, second
