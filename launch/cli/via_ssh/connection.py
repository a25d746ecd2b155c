"""One connection of ssh to a login node, shared by all commands of some minutes: one key, one password, one code.

The user's own ssh configuration holds: names, jump hosts, keys. Where the user has a shared connection to the host open
already (ControlMaster of his own) that one is used. Else ours is opened, with its socket in a directory that is closed
to others, and it ends by itself ten minutes after its last use, or by ``overnight via close``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from launch.base.errors import ClusterUnreachable, InputError, RejectedByCluster

PERSIST_SECONDS = 600
ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
"""A network that has gone is noticed after a minute. Without it ssh waits for hours."""

SSH_FAILED = 255
"""Exit code of ssh itself; no command of ours ends so."""

INSTALL = (
    "there, in a checkout of overnight: "
    "python3 -m venv ~/overnight-venv && ~/overnight-venv/bin/pip install '.[nemo-run,submitit]'"
)

_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_PROGRAM = re.compile(r"(?:~/|/)?[A-Za-z0-9_][A-Za-z0-9_./+@=-]*\Z")
# Nothing of the user's configuration that would take over the session, and nothing that a second one cannot have.
_PLAIN = shlex.split(
    "-T -a -x -o RemoteCommand=none -o RequestTTY=no -o ClearAllForwardings=yes -o PermitLocalCommand=no"
)
_SOCKET_MAX = 104 - 18
"""Bytes that the path of a socket may have (macOS), without what ssh adds while it makes it."""

_REFUSED = re.compile(r"permission denied|host key verification failed|too many authentication failures", re.IGNORECASE)
_OPEN_SECONDS = 300.0
"""Enough to look up a one-time code."""


@dataclass(frozen=True)
class Target:
    """``HOST`` or ``HOST:PROGRAM``: where, and which ``overnight`` there."""

    host: str
    program: str | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that ``text`` names. Raises InputError: ssh or a shell could take the name for something else."""
        host, colon, program = text.partition(":")
        if not _HOST.match(host):
            raise InputError(
                f"--via {text!r}: {host!r} is not a host name",
                hint="write [USER@]HOST, or a Host of your ~/.ssh/config",
            )
        if colon and not _PROGRAM.match(program):
            raise InputError(
                f"--via {text!r}: {program!r} is not a plain path of a program",
                hint=f"write {host}:/path/to/bin/overnight, without blanks",
            )
        return cls(host, program if colon else None)

    @property
    def serve(self) -> str:
        """The command for the login shell there. Only the path of the program comes from an argument, and its letters
        are literal in every shell. A login shell of bash, since sites set PATH for Slurm and modules in
        /etc/profile.d."""
        if self.program is not None:
            return f"exec bash -lc 'exec {self.program} via serve'"
        return "exec bash -lc 'PATH=\"$PATH:$HOME/overnight-venv/bin\"; exec overnight via serve'"


def socket_directory() -> Path:
    """``$XDG_RUNTIME_DIR/overnight``, else ``overnight-<uid>`` of the temporary directory. Raises InputError: it is not
    closed to others, and access to the socket is access to the connection."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "overnight" if runtime else Path(tempfile.gettempdir()) / f"overnight-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        about = base.lstat()
    except OSError as error:
        raise InputError(f"cannot make the directory for ssh's socket, {base}: {error.strerror}") from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise InputError(
            f"{base} is not yours alone: another user could use your connection", hint=f"ls -ld {base}, then remove it"
        )
    return base


class Connection:
    """The way to a host; ``open`` it before anything else."""

    def __init__(self, target: Target) -> None:
        """Choose the path of the socket; nothing is connected yet. Raises InputError: no safe place for the socket."""
        self.target = target
        name = hashlib.sha256(target.host.encode()).hexdigest()[:12]
        self.socket = socket_directory() / f"via-{name}"
        if len(os.fsencode(self.socket)) > _SOCKET_MAX or re.search(r"[\s%'\"\\]", str(self.socket)):
            raise InputError(
                f"{self.socket} is too long or too odd for the path of a socket",
                hint="set XDG_RUNTIME_DIR to another one",
            )
        self._own = ["-o", f"ControlPath={self.socket}"]
        self._is_own = True

    @property
    def ssh(self) -> list[str]:
        """The command line of ssh through the open connection. A new one could ask for a password."""
        own = self._own if self._is_own else []
        return ["ssh", *_PLAIN, *own, "-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]

    def open(self) -> None:
        """Connect unless it is connected; ssh asks at the terminal. Raises RejectedByCluster: the host does not let
        this user in, or its key has changed. Raises ClusterUnreachable: no response."""
        host = self.target.host
        if self._control("check", []):
            self._is_own = False
            return
        if self._control("check", self._own):
            return
        began = time.monotonic()
        persist = ["-o", "ControlMaster=auto", "-o", f"ControlPersist={PERSIST_SECONDS}"]
        command = ["ssh", *_PLAIN, *ALIVE, *self._own, *persist, "--", host, "exit"]
        code, said = _with_its_words(command)
        if code == 0:
            return
        last = said.strip().splitlines()[-1] if said.strip() else f"ssh ended with {code} and gave no reason"
        if _REFUSED.search(said):
            raise RejectedByCluster(
                f"{host} does not let you in: {last}",
                command=("ssh", host),
                exit_code=code,
                stderr=said,
                hint=f"ssh {host} must work by itself first",
            )
        raise ClusterUnreachable(
            f"{host} cannot be reached, nothing was done: {last}",
            command=("ssh", host),
            since=time.monotonic() - began,
            hint=f"ssh {host} must work by itself first",
        )

    def close(self) -> bool:
        """End our connection; whether there was one. The user's own is left alone."""
        return self._control("check", self._own) and self._control("exit", self._own)

    def _control(self, word: str, options: list[str]) -> bool:
        command = ["ssh", *options, "-O", word, "--", self.target.host]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        except FileNotFoundError as error:
            raise InputError("ssh is not installed on this machine", hint="install OpenSSH's client") from error
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def _with_its_words(command: list[str]) -> tuple[int, str]:
    """Exit code of ssh and what it printed on stderr, which is shown at once: it may be a question."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = bytearray()

    def pass_on() -> None:
        assert process.stderr is not None
        while chunk := os.read(process.stderr.fileno(), 4096):
            said.extend(chunk)
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        code = process.wait(timeout=_OPEN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    reader.join(timeout=5)  # the shared connection lives on in the background: it might keep the pipe open
    return code, said.decode("utf-8", "replace")
