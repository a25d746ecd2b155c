"""This side of ``--via``: brings over what is needed, has the other side do the command, and shows what it says."""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

from jobs.core import attempts, strict
from launch import __version__
from launch.base.errors import ClusterUnreachable, InputError, RejectedByCluster
from launch.cli.via_ssh import bundle, protocol
from launch.cli.via_ssh.bundle import Bundle
from launch.cli.via_ssh.connection import INSTALL, SSH_FAILED, Connection, Target

GREETING_SECONDS = 120.0
"""For the login scripts of a busy login node, and Python from its file system."""

_NOT_FOUND = 127


@dataclass(frozen=True)
class Greeting:
    """What the other side says of itself. ``have``: digests of bundles that lie there, the newest first."""

    version: str
    staging: str
    have: tuple[str, ...]


class Bytes(Protocol):
    """What ``stdout.buffer`` can do."""

    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> None: ...


def run(name: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run the command on the host of ``args.via``; returns its exit code. Raises InputError: as the command, or no
    suitable ``overnight`` there. Raises RejectedByCluster, ClusterUnreachable: ssh failed. After a lost connection the
    outcome is not known, and every command is safe to repeat."""
    target = Target.parse(args.via)
    # Before the connection: a fault in the pipeline is worth no code from a telephone.
    with bundle.made(args) as made:
        replace: dict[str, Any] = {"via": None, **({} if made is None else made.replace)}
        argv = [name, *rebuilt(parser, args, replace)]
        connection = Connection(target)
        connection.open()
        with session(connection) as other:
            greeting = other.greeting()
            told: dict[str, Any] = {"argv": argv, "bundle": None}
            if made is not None:
                told["bundle"] = {"digest": made.digest, "incoming": None}
                if made.digest not in greeting.have:
                    told["bundle"]["incoming"] = send(connection, made, greeting, quiet=args.json)
            code = other.finish(name, told, sys.stdout.buffer)
    if not args.json and name in protocol.FINISHED:
        print(f"(on {target.host}: commands for it take --via {args.via})", file=sys.stderr)
    return code


def rebuilt(parser: argparse.ArgumentParser, args: argparse.Namespace, replace: Mapping[str, Any]) -> list[str]:
    """Arguments that ``parser`` reads as ``args`` on the other machine, with the values of ``replace`` (by ``dest``;
    None: left out)."""
    options: list[str] = []
    places: list[str] = []
    for action in parser._actions:
        if action.dest == argparse.SUPPRESS or not hasattr(args, action.dest):
            continue
        value = replace.get(action.dest, getattr(args, action.dest))
        if value is None or (value == action.default and action.dest not in replace):
            continue
        if not action.option_strings:
            places += [str(one) for one in value] if isinstance(value, list) else [str(value)]
        elif action.nargs == 0:
            options.append(action.option_strings[-1] if value else f"--no-{action.dest.replace('_', '-')}")
        else:
            # With "=", for a value may begin with "-".
            values = value if isinstance(value, list) else [value]
            options += [f"{action.option_strings[-1]}={one}" for one in values]
    return [*options, "--", *places] if places else options


def send(connection: Connection, made: Bundle, greeting: Greeting, quiet: bool) -> str:
    """Copy the bundle and return its directory there; files of earlier bundles are not sent again. Raises
    RejectedByCluster: rsync failed, nothing was done."""
    incoming = f"incoming-{attempts.new_token(12)}"
    shown = [] if quiet or not sys.stderr.isatty() else ["--info=progress2"]
    links = [f"--link-dest=../{digest}" for digest in greeting.have[:3]]
    # -s: the path on the other side does not go through its shell.
    command = ["rsync", "-s", "-rlp", "--checksum", *shown, *links, "-e", shlex.join(connection.ssh), "--"]
    command += [f"{made.directory}/", f"{connection.target.host}:{greeting.staging}/{incoming}/"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=bundle.environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise InputError("rsync is not installed on this machine", hint="install rsync, 3.1 or newer") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
        raise RejectedByCluster(
            f"the code could not be brought to {connection.target.host}, nothing was done: {last}",
            command=("rsync",),
            exit_code=done.returncode,
            stderr=said,
            hint="rsync must be there on both sides",
        )
    return incoming


@contextmanager
def session(connection: Connection) -> Iterator[Session]:
    """The other side, started; ended with whatever it does if we leave early."""
    command = [*connection.ssh, "--", connection.target.host, connection.target.serve]
    # In a session of its own: Ctrl-C of the terminal is ours, and is sent as a message.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
    )
    try:
        yield Session(connection.target, process)
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Session:
    """One conversation with the other side."""

    def __init__(self, target: Target, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._target = target
        self._process = process
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._began = time.monotonic()

    def greeting(self) -> Greeting:
        """The greeting; what login scripts print before it goes to stderr. Raises InputError: no ``overnight`` there,
        or a too old one. Raises ClusterUnreachable: nothing came."""
        before = bytearray()
        line = bytearray()
        while True:
            byte = self._read_by(self._began + GREETING_SECONDS, 1)
            if not byte:
                raise self._not_there(bytes(before + line))
            line += byte
            if len(line) + len(before) > protocol.MAX_LINE:
                raise self._silent("printed a megabyte and no greeting")
            if byte != b"\n":
                continue
            if line.startswith(protocol.GREETING.encode()):
                break
            before += line
            line.clear()
        if before.strip():
            sys.stderr.buffer.write(before)
            sys.stderr.flush()
        try:
            value = strict.parse(bytes(line[len(protocol.GREETING) :]))
            have = tuple(str(digest) for digest in value["have"])
            return Greeting(str(value["version"]), str(value["staging"]), have)
        except (ValueError, KeyError, TypeError) as error:
            raise self._silent("sent an invalid greeting") from error

    def finish(self, name: str, told: dict[str, Any], output: Bytes) -> int:
        """Send the request, pass on the output, and return the exit code. Raises ClusterUnreachable: the connection was
        lost. Raises KeyboardInterrupt: a second Ctrl-C; the other side got the first."""
        line = json.dumps(told, ensure_ascii=True).encode() + b"\n"
        if len(line) > protocol.MAX_LINE:
            raise InputError("the arguments are longer than a megabyte")
        writer = threading.Thread(target=self._write, args=(line,), daemon=True)
        with self._interrupts():
            writer.start()
            while chunk := self._next_chunk():
                output.write(chunk)
                output.flush()
            code = self._process.wait()
        if code == SSH_FAILED or code < 0:
            raise self._lost(name)
        return code

    def _next_chunk(self) -> bytes:
        """Empty at the end. Where ssh has died its shared connection may still hold the pipe, so both are looked at."""
        while not select.select([self._out], [], [], 1.0)[0]:
            if self._process.poll() is not None:
                return b""
        return os.read(self._out, 65536)

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        asked = False

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            if asked:
                raise KeyboardInterrupt
            asked = True
            self._write(protocol.INTERRUPT)

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._in, data) :]
        except OSError:
            pass  # the end of its output says the same, and more

    def _read_by(self, end: float, size: int) -> bytes:
        ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise self._silent("does not start overnight")
        return os.read(self._out, size)

    def _not_there(self, before: bytes) -> InputError | ClusterUnreachable:
        code = self._process.wait()
        host = self._target.host
        if code == SSH_FAILED or code < 0:
            return self._silent("was lost before anything was done")
        if code == _NOT_FOUND:
            wanted = self._target.program or "overnight, neither on PATH nor as ~/overnight-venv/bin/overnight"
            return InputError(
                f"there is no {wanted} on {host}",
                hint=f"{INSTALL}; if it is elsewhere: --via {host}:/path/to/bin/overnight",
            )
        said = before.decode("utf-8", "replace").strip()
        return InputError(
            f"overnight on {host} ended with {code} before it read a request" + (f": {said[-500:]}" if said else ""),
            hint=f"it must be as new as this one, {__version__}; {INSTALL}",
        )

    def _silent(self, what: str) -> ClusterUnreachable:
        return ClusterUnreachable(
            f"{self._target.host} {what}",
            command=("ssh", self._target.host),
            since=time.monotonic() - self._began,
            hint=f"ssh {self._target.host} must work by itself first",
        )

    def _lost(self, name: str) -> ClusterUnreachable:
        host = self._target.host
        known = (
            "it runs to its end if the host is up; repeated, it adopts what is queued and submits nothing twice"
            if name in protocol.FINISHED
            else "it was to change nothing that cannot be repeated"
        )
        return ClusterUnreachable(
            f"the connection to {host} was lost during {name}; {known}",
            command=("ssh", host),
            since=time.monotonic() - self._began,
            hint=f"overnight list --via {host}, then the same command again",
        )
