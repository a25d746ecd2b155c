"""Entry point of ``overnight``: finds the sub-command, imports that one alone, and turns errors into exit codes.

Nothing but argparse is imported for ``--help``: the table below holds the names and the help lines.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn, TextIO, cast

from launch import __version__
from launch.base.errors import InputError, OvernightError

COMMANDS = {
    "new": "write a pipeline for your data, from five questions",
    "fetch": "bring base models and data sources into the workspace",
    "plan": "show the jobs of a pipeline, and what is already done",
    "submit": "submit a pipeline as a chain of Slurm jobs",
    "run": "run a pipeline on this machine, in the foreground",
    "status": "the state of a run, and why a job waits",
    "watch": "follow a run on a screen, or line by line",
    "why": "why a stage failed or waits, and how to continue",
    "report": "what became of a run: the finished model, or why there is none",
    "notify": "write the letter about a run that has ended, and send what has not arrived",
    "publish": "put the export of a run on a hub",
    "compare": "hold runs against each other: files, numbers, cost",
    "evaluate": "measure a model, a server or stored answers on this machine",
    "human": "let people judge the answers of two models of a run",
    "tensorboard": "show the curves of a run's training in TensorBoard",
    "track": "send the metrics of a run's training to W&B or MLflow",
    "logs": "show or follow the log of a stage",
    "cancel": "cancel a run, or a stage and what depends on it",
    "resume": "submit again only what is missing",
    "doctor": "find and remove what a run has left behind or lost",
    "gc": "remove what no run needs, and say how much it freed",
    "rm": "remove a run, with the results that no other run uses",
    "list": "list the runs of a workspace",
    "data": "prepare training data, or look at it as the trainer will",
    "profile": "write, check and try the profile of a cluster",
    "schema": "print the JSON Schema of pipelines, profiles or results, for editors",
    "completion": "print the completion script of bash, zsh or fish",
    "man": "print the manual page of overnight",
    "via": "look after the connections of --via",
    "cluster": "start or stop a throw-away Slurm on this machine",
}
"""Sub-command, which is the name of its module in this room, and its line in ``overnight --help``."""

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13
BUG = 70  # EX_SOFTWARE: apart from every expected exit code

_OF_THE_MACHINE = frozenset({
    errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.EMLINK, errno.ENAMETOOLONG, errno.ENFILE,
    errno.ENOMEM, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
})  # fmt: skip
"""What the machine can do to us at any call, beside what passes; a traceback would not help."""


_WAITS_FOR = {
    "plan": "reading the plan", "submit": "submitting", "resume": "reading the run", "cancel": "reading the run",
    "status": "reading the run", "why": "reading the run", "report": "reading the run", "doctor": "reading the run",
    "rm": "reading the runs", "list": "reading the runs", "compare": "reading the runs",
    "gc": "looking at the workspace", "profile": "asking the cluster",
}  # fmt: skip
"""Shown for a command that takes longer, where nothing more is known."""

CHANGE_SOMETHING = frozenset({"fetch", "submit", "run", "cancel", "resume", "doctor", "gc", "rm", "notify", "publish"})
"""Commands that go on when nobody reads what they print any more (`overnight submit | head`)."""


class _Lasting:
    """A stream of this process that drops the rest once its reader has left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _dropped(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _dropped(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def _dropped(stream: TextIO) -> Iterator[None]:
    """After a broken pipe nothing more is written. (Python would complain once more at its own last flush.)"""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as an InputError, so that it looks like every other error and honours ``--json``."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, hint=f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``overnight`` with ``argv`` (default: of the process) and return its exit code."""
    if argv is None:  # a process of its own
        # Python looks for garbage after every 700 new objects and twice at its end: for a command that mostly imports
        # that is a quarter of its CPU.
        gc.set_threshold(300_000)
        atexit.register(gc.freeze)
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _lasting(arguments):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        try:
            code = _dispatch(_in_words(arguments))
        except SystemExit as done:  # how argparse leaves after --help
            code = done.code if isinstance(done.code, int) else 0
        sys.stdout.flush()
        return code
    except OvernightError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        from jobs.core.patience import passes

        if error.errno in _OF_THE_MACHINE or passes(error):
            return _report(InputError(f"{error.filename or 'this machine'}: {error.strerror}"), as_json)
        return _bug()
    except MemoryError:
        return _report(InputError("this machine has no memory left for it"), as_json)
    except Exception:
        return _bug()


def _in_words(arguments: list[str]) -> list[str]:
    """``help [COMMAND]``, ``version``, ``-V`` and no argument at all, as the options that they mean."""
    match arguments:
        case []:
            return ["--help"]
        case ["help", *words]:
            return [*(word for word in words[:1] if not word.startswith("-")), "--help"]
        case ["version"] | ["-V"]:
            return ["--version"]
    return arguments


def _name_in(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)


@contextlib.contextmanager
def _lasting(arguments: Sequence[str]) -> Iterator[None]:
    """What is printed inside may find no reader, if the command is one of those that go on."""
    if _name_in(arguments) not in CHANGE_SOMETHING:
        yield
        return
    out, err = (cast(TextIO, _Lasting(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def _dispatch(arguments: list[str]) -> int:
    name = _name_in(arguments)
    if name is not None and name not in COMMANDS:
        from launch.base.text import suggest

        raise InputError(f"there is no command {name!r}; {suggest(name, list(COMMANDS))}", hint="overnight --help")
    module = None if name is None else _load(name)
    # A parser takes its time to make: those of the other commands are only there to be listed.
    parser, own = _parser(name, module, [name] if name is not None and arguments[0] == name else list(COMMANDS))
    args = parser.parse_args(arguments)
    if name is None or module is None or own is None:
        raise InputError("no command given", hint="overnight --help")
    args.main = main  # for `via serve`, which runs another command
    args.whole_parser = whole_parser  # for what is made of all commands
    from launch.base import answers, waiting

    answers.begin(name, getattr(args, "action", None))
    if getattr(args, "via", None) is not None:
        from launch.cli.via_ssh import client

        return client.run(name, own, args)
    quiet = bool(getattr(args, "json", False)) or name not in _WAITS_FOR
    with waiting.shown(_WAITS_FOR.get(name, ""), quiet):
        return int(module.run(args))


def _load(name: str) -> ModuleType:
    module = f"launch.cli.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise InputError(f"the command {name!r} is not part of this installation ({module})") from error


def _parser(
    chosen: str | None, module: ModuleType | None, names: Sequence[str]
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]:
    """The parser of ``overnight`` with the commands ``names``, options of the chosen one only, and that one's own."""
    from launch.cli.via_ssh import protocol

    parser = _Parser(
        prog="overnight",
        description="One pipeline file and one cluster profile become a chain of Slurm jobs with verified hand-offs.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"overnight {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    found = None
    for name in names:
        own = commands.add_parser(name, help=COMMANDS[name])
        if name == chosen and module is not None:
            found = own
            own.description = module.__doc__
            module.configure(own)
            if name in protocol.COMMANDS:
                own.add_argument("--via", metavar="HOST", help="do it on this login node, through ssh")
    return parser, found


def whole_parser() -> argparse.ArgumentParser:
    """With the options of every command, for completion and the manual: takes its time."""
    parser, _ = _parser(None, None, ())
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    for name, line in COMMANDS.items():
        module = _load(name)
        own = commands.add_parser(name, help=line, description=module.__doc__)
        module.configure(own)
    return parser


def _report(error: OvernightError, as_json: bool) -> int:
    if as_json:
        import json

        print(json.dumps(error.as_json(), ensure_ascii=False), file=sys.stderr)
    else:
        from launch.base import paint

        head = paint.text("overnight:", f"{paint.BOLD};{paint.RED}", sys.stderr)
        print(f"{head} {error}", file=sys.stderr)
        if error.hint:
            print(f"{paint.text('next:', paint.BOLD, sys.stderr)} {error.hint}", file=sys.stderr)
    return error.exit_code


def _bug() -> int:
    import traceback

    traceback.print_exc()
    print(
        f"overnight {__version__}: this is a bug in overnight; please report it with the lines above", file=sys.stderr
    )
    return BUG
