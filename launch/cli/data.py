"""Prepare training data from files, or look at data as the trainer will see it.

The same functions as the data stages of a pipeline, with the same settings: ``--set near_duplicates=0.8`` is
``prepare: {near_duplicates: 0.8}`` of a stage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.base import answers, paint
from launch.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from data_prep.corpus.workers import Runner
    from data_prep.inspect import Shown, Token

KINDS = ("corpus", "instructions", "preferences")
_OF_STAGE = ("split", "limit", "min_chars", "max_chars")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    look = actions.add_parser("inspect", help="rows as the trainer will see them: tokens, and which carry loss")
    look.add_argument("path", type=Path, metavar="PATH", help="data set, store entry, .jsonl file or .bin/.idx prefix")
    look.add_argument("--tokenizer", type=Path, metavar="DIR", help="show the tokens of this tokenizer")
    look.add_argument("--split", choices=("train", "validation", "test"), default="train")
    look.add_argument("--rows", type=int, default=3, metavar="N", help="how many (default 3)")
    look.add_argument("--skip", type=int, default=0, metavar="N", help="how many to pass over first")
    look.add_argument("--json", action="store_true", help="print machine-readable output")
    for kind in KINDS:
        own = actions.add_parser(kind, help=f"make {kind} from files")
        own.add_argument("inputs", nargs="+", type=Path, metavar="PATH", help="files and directories")
        own.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the data set goes")
        own.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, its value as YAML")
        own.add_argument("--json", action="store_true", help="print machine-readable output")
        if kind == "corpus":
            own.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores of this machine)")
            own.add_argument(
                "--work", type=Path, metavar="DIR", help="directory of finished shards (default: next to the output)"
            )
            own.add_argument("--cluster", metavar="PROFILE", help="process the shards as an array of Slurm jobs")
            own.add_argument("--jobs", type=int, default=64, metavar="N", help="jobs at the same time (default 64)")


def run(args: argparse.Namespace) -> int:
    """Do the action. Raises InputError: bad input, with file and line; settings that do not fit."""
    from data_prep.common.errors import DataError
    from launch.base.errors import InputError

    try:
        return _inspect(args) if args.action == "inspect" else _prepare(args)
    except DataError as error:
        raise InputError(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "tokenizers", "transformers"):
            raise
        raise InputError(f"this needs the extra data: {error}", hint='pip install "overnight[data]"') from error


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of a stage from ``--set``: keys of the stage itself, the rest for ``prepare``; dots go down."""
    from data_prep import paths
    from launch.base.errors import InputError
    from launch.config.document.layers import option_value

    stage: dict[str, Any] = {"source": {"type": "path"}, "prepare": {}}
    for text in args.set:
        key, equals, value = text.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names):
            raise InputError(f"--set {text!r}: write KEY=VALUE")
        place = stage if names[0] in _OF_STAGE else stage["prepare"]
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = option_value(value.strip(), f"--set {text}")
    stage["prepare"] = paths.resolved(stage["prepare"], lambda path: str(Path(path).expanduser().absolute()))
    return stage


def _prepare(args: argparse.Namespace) -> int:
    from data_prep import prepared
    from data_prep.common.settings import Settings
    from launch.base.errors import InputError
    from launch.cli.progress import phases, shown

    settings = Settings.parse(args.action, _settings(args))
    output = args.output.absolute()
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty", hint="name another directory, or remove this one")
    # Filled beside its place and renamed when it is whole: what is killed leaves nothing that looks like a data set.
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    runner: Runner | None = None
    work = output.with_name(f"{output.name}.work")
    if args.action == "corpus":
        from data_prep.corpus.workers import ProcessRunner

        work = (args.work or work).absolute()
        runner = ProcessRunner(args.workers)
        if args.cluster is not None:
            from launch.cli.data_cluster import ArrayRunner

            runner = ArrayRunner(args.cluster, args.jobs)
    sources = prepared.sources_of(args.inputs)
    try:
        with shown(quiet=args.json) as shown_on:
            counts = prepared.build(settings, sources, partial, work, report=phases(shown_on), runner=runner)
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    card = json.loads((output / "card.json").read_text(encoding="utf-8"))
    lines = [
        f"{output}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()),
        f"{card['read']:,} {card['unit']}s read = {card['kept']:,} kept + {sum(card['dropped'].values()):,} dropped",
        *(f"  {count:>9,}  {reason}" for reason, count in sorted(card["dropped"].items(), key=lambda entry: -entry[1])),
        f"card: {output / 'card.html'}",
        f"next: overnight data inspect {output}",
    ]
    options.print_result({"output": str(output), "rows": counts, "dropped": card["dropped"]}, lines, args.json)
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from data_prep import inspect

    path = inspect.data_file(args.path, args.split)
    found = list(inspect.rows(path, args.tokenizer, args.rows, args.skip))
    if args.json:
        for row in found:
            print(answers.dumps(asdict(row), ascii_only=False))
        return 0
    console = None
    if paint.wanted(sys.stdout):
        from rich.console import Console

        console = Console(highlight=False)
    for row in found:
        show(row, console)
    return 0


def show(row: Shown, console: Console | None) -> None:
    """Print one row. With colours, tokens with loss are green, others grey, control tokens bold, every other one
    underlined to show its end."""
    heads = {
        name: _counts(tokens) + (f"; {row.notes[name]}" if row.notes.get(name) else "")
        for name, tokens in row.sequences.items()
    }
    if console is None:
        print(f"{row.place}  {row.name}")
        for name, tokens in row.sequences.items():
            print(f"{name}{heads[name]}\n{''.join(token.text for token in tokens)}")
        return
    from rich.text import Text

    # Not cut to the width of the terminal as a rule would be: its end is the line number.
    console.print(Text(f"{row.place}  {row.name}", "bold cyan"), soft_wrap=True)
    for name, tokens in row.sequences.items():
        console.print(Text.assemble((name, "bold"), heads[name]))
        text = Text()
        for number, token in enumerate(tokens):
            style = ("bold " if token.control else "") + ("green" if token.loss else "bright_black")
            text.append(token.text, style + (" underline" if token.id is not None and number % 2 else ""))
        console.print(text)


def _counts(tokens: Sequence[Token]) -> str:
    """How many tokens there are; empty where no tokenizer is given."""
    counted = tokens and tokens[0].id is not None
    return f"  {len(tokens)} tokens, {sum(token.loss for token in tokens)} with loss" if counted else ""
