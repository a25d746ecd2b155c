"""Print the script that completes commands, options and files in a shell.

bash: overnight completion bash > ~/.local/share/bash-completion/completions/overnight
zsh:  overnight completion zsh > a directory of $fpath, as _overnight
fish: overnight completion fish > ~/.config/fish/completions/overnight.fish
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")
_FILES = ("PIPELINE", "FILE", "PATH")
_DIRECTORIES = ("DIR",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print."""
    import shtab

    parser = args.whole_parser()
    _complete_files(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: object, directories: object) -> None:
    """Where a path is expected, paths are offered."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                _complete_files(own, files, directories)
        elif action.metavar in (*_FILES, *_DIRECTORIES):
            action.complete = files if action.metavar in _FILES else directories  # type: ignore[attr-defined]
