"""Print the manual page: overnight man > ~/.local/share/man/man1/overnight.1, then: man overnight."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

_ENVIRONMENT = {
    "OVERNIGHT_WORKSPACE": "where runs and results are stored (default: the profile's, or ~/overnight)",
    "OVERNIGHT_CLUSTER": "the profile of a command without --cluster",
    "OVERNIGHT_PROFILES": "directories with profiles of the site",
    "OVERNIGHT_SECRETS": "the file of secrets (default: ~/.config/overnight/secrets)",
    "NO_COLOR": "no colours; FORCE_COLOR: colours also in a pipe",
    "TZ": "the zone in which times are shown; in --json they are in UTC",
}
_EXITS = {
    "0": "done",
    "1": "a stage failed, or a check found something",
    "2": "the input is invalid",
    "3": "rejected by the cluster",
    "4": "no response from the cluster",
    "70": "a bug in overnight",
    "130": "interrupted",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--markdown", action="store_true", help="as the page docs/cli.md")


def run(args: argparse.Namespace) -> int:
    """Print."""
    print("\n".join((markdown if args.markdown else page)(args.whole_parser())))
    return 0


def markdown(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Lines of Markdown, of the parser with all commands."""
    yield from (
        "# Commands",
        "",
        "This page is made by `overnight man --markdown`, of the parsers of the commands.",
        "",
    )
    yield from (
        "`overnight COMMAND --help` prints the same for one command. `--via HOST`, of those that make sense on a",
    )
    yield from ("login node, does the command [there](from_a_laptop.md).",)
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    for name, own in commands.choices.items():
        yield from ("", f"## overnight {name}", "", *_described(own.description or ""))
        yield from _rows(own, f"overnight {name}", 3)
    for title, known in (("Environment", _ENVIRONMENT), ("Exit codes", _EXITS)):
        yield from ("", f"## {title}", "", "| | |", "| --- | --- |")
        yield from (f"| `{name}` | {text} |" for name, text in known.items())


def _described(text: str) -> Iterator[str]:
    """Paragraphs; what they show indented or with a colon stays text: it is no Markdown."""
    for paragraph in text.strip().split("\n\n"):
        yield from (" ".join(paragraph.split()).replace("*", r"\*").replace("<", r"\<"), "")


def _rows(parser: argparse.ArgumentParser, name: str, level: int) -> Iterator[str]:
    shown = [one for one in parser._actions if one.help != argparse.SUPPRESS and "-h" not in one.option_strings]
    own = [one for one in shown if not isinstance(one, argparse._SubParsersAction)]
    if own:
        yield from ("| | |", "| --- | --- |")
    for action in own:
        text = " ".join(((action.help or "") % {"default": action.default}).split()).replace("|", r"\|")
        written = _written(action).replace("|", r"\|")
        must = "; required" if action.option_strings and action.required else ""
        yield f"| `{written}` | {text}{must} |"
    for action in shown:
        if isinstance(action, argparse._SubParsersAction):
            lines = {one.dest: one.help or "" for one in action._choices_actions}
            for inner, below in action.choices.items():
                if inner in lines:
                    yield from ("", f"{'#' * level} {name} {inner}", "", f"{lines[inner]}", "")
                    yield from _rows(below, f"{name} {inner}", level + 1)


def page(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Lines of roff, of the parser with all commands."""
    from launch import __version__

    yield f'.TH OVERNIGHT 1 "" "overnight {__version__}" "User Commands"'
    yield from (".SH NAME", "overnight \\- chains of training jobs for language models on Slurm clusters")
    yield from (".SH SYNOPSIS", ".B overnight", ".I COMMAND", "[options]", ".SH DESCRIPTION", _text(parser.description))
    yield from (".SH OPTIONS", ".TP", r".B \-\-version", "the version; also: overnight version")
    yield from (".TP", r".B \-\-help", "also of each command; also: overnight help COMMAND")
    yield ".SH COMMANDS"
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    lines = {one.dest: one.help or "" for one in commands._choices_actions}
    for name, own in commands.choices.items():
        yield from (f".SS overnight {_text(name)}", _text(lines[name]))
        yield from _options(own)
    for title, known in (("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _EXITS)):
        yield f".SH {title}"
        for name, text in known.items():
            yield from (".TP", f".B {_text(name)}", _text(text))


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {one.dest: one.help or "" for one in action._choices_actions}
            for name, own in action.choices.items():
                yield from (".TP", f".B {_text(name)}", _text(lines.get(name, "")))
                yield from (".RS", *_options(own), ".RE")
        elif action.help != argparse.SUPPRESS and "-h" not in action.option_strings:
            yield from (
                ".TP",
                f".B {_text(_written(action))}",
                _text((action.help or "") % {"default": action.default}),
            )


def _written(action: argparse.Action) -> str:
    named = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or [action.dest]))
    if not action.option_strings:
        return named
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {named}")


def _text(text: str | None) -> str:
    """In roff a backslash, a hyphen of an option, and a dot or quote that begins a line have meanings."""
    shown = " ".join((text or "").split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown
