"""The other side of ``--via``: started by ssh on the login node, does one command and ends with it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.core import strict
from launch import __version__
from launch.base.errors import InputError
from launch.base.text import user_place
from launch.cli.via_ssh import protocol
from launch.inputs import user_code

KEPT = 20
"""Bundles that stay for the next submission to build on; the newest."""

ABANDONED_SECONDS = 24 * 3600.0

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_INCOMING = re.compile(r"incoming-[a-z0-9]+\Z")


def staging() -> Path:
    """Where bundles lie until they are in a workspace: ``via`` of the user's cache, closed to others."""
    path = user_place("CACHE", ".cache") / "via"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def serve(run_command: Callable[[list[str]], int]) -> int:
    """Send the greeting, read one command and run it by ``run_command`` (``overnight`` with these arguments); returns
    its exit code. Raises InputError: what was read is not of the protocol."""
    # The command must not read from what is meant for us.
    control = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    place = staging()
    greeting = {"version": __version__, "staging": str(place), "have": bundles(place)}
    # On a line of its own, whatever a login script has printed.
    print(f"\n{protocol.GREETING}{json.dumps(greeting)}", flush=True)
    line = _first_line(control)
    if line is None:
        return 0  # the other side has gone
    argv, directory = understood(line, place)
    os.chdir(directory)
    if argv[0] in protocol.FINISHED:
        _outlive_the_reader()
    threading.Thread(target=_listen, args=(control, argv[0]), daemon=True).start()
    return run_command(argv)


def _first_line(control: int) -> bytes | None:
    """Not by a buffered reader: what the thread then waits in could not be closed."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(control, 1)
        if not byte or len(line) > protocol.MAX_LINE:
            return None
        line += byte
    return bytes(line)


def bundles(place: Path) -> list[str]:
    """Digests of what lies there, the newest first; removes what is old or was left half sent."""
    found = []
    for entry in place.iterdir():
        age = time.time() - entry.lstat().st_mtime
        if _DIGEST.match(entry.name):
            found.append((age, entry))
        elif age > ABANDONED_SECONDS:
            _remove(entry)
    found.sort(key=lambda pair: pair[0])
    for _, entry in found[KEPT:]:
        _remove(entry)
    return [entry.name for _, entry in found[:KEPT]]


def understood(line: bytes, place: Path) -> tuple[list[str], Path]:
    """The command, and the directory to do it in. Raises InputError: not of the protocol, or another bundle arrived."""
    try:
        told: dict[str, Any] = strict.parse(line)
        argv, bundle = told["argv"], told["bundle"]
        if not all(isinstance(word, str) for word in argv) or argv[0] not in protocol.COMMANDS:
            raise ValueError(f"no command for --via: {argv[:1]}")
        if bundle is None:
            return argv, Path.home()
        digest, incoming = str(bundle["digest"]), bundle["incoming"]
        if not _DIGEST.match(digest) or not (incoming is None or _INCOMING.match(str(incoming))):
            raise ValueError("a bundle is called by its digest")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"the request of the other side is invalid: {error}") from error
    target = place / digest
    if incoming is not None:
        _accept(place / str(incoming), target)
    if not target.is_dir():
        raise InputError("the bundle has been removed meanwhile", hint="the same command again")
    os.utime(target)
    return argv, target


def _accept(incoming: Path, target: Path) -> None:
    if not incoming.is_dir() or user_code.digest_of(incoming, user_code.listing(incoming)) != target.name:
        _remove(incoming)
        raise InputError("what came over is not what was sent", hint="the same command again")
    try:
        incoming.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        _remove(incoming)  # another one was quicker, with the same


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        user_code.remove(path)
    else:
        path.unlink(missing_ok=True)


def _listen(control: int, name: str) -> None:
    """Pass Ctrl-C on; where the connection is lost, end what only shows something."""
    while told := os.read(control, 4096):
        if protocol.INTERRUPT in told:
            os.kill(os.getpid(), signal.SIGINT)
    if name not in protocol.FINISHED:
        os.kill(os.getpid(), signal.SIGINT)


class _Tolerant(io.RawIOBase):
    """A stream that may have lost its reader."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, data: Any, /) -> int:
        try:
            return os.write(self._number, data)
        except OSError:
            return len(data)


def _outlive_the_reader() -> None:
    """Continue where nothing reads our output any more: a submission must not stop between two jobs."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(io.BufferedWriter(_Tolerant(number)), encoding="utf-8", line_buffering=True)
        setattr(sys, name, stream)
