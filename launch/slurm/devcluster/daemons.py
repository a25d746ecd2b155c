"""Processes of the dev cluster: start them, tell whether they live, take them and all they started down.

A process is known by its id *and* its start time, so a number that the kernel gave to somebody else is never signalled.
Every daemon also carries a marker in its environment: it finds processes whose record was lost (``up`` killed between
the start and the record, records deleted by hand).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = "OVERNIGHT_DEVCLUSTER_DAEMON"

#: Debian keeps the daemons in /usr/sbin, which an ordinary user's PATH may lack; a PATH of our own also keeps
#: the daemons independent of the shell that happened to start them.
DAEMON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Children of this process (start and stop in one process, as in tests) must be reaped or they stay as zombies.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """One process, and no later one of the same number."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None when there is none or only a zombie."""
        state = _stat(pid)
        return cls(pid, state.started) if state and _lives(pid, state.state) else None

    @property
    def alive(self) -> bool:
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            del _children[self.pid]
        return Process.of(self.pid) == self


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may hold anything, also spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], parent=int(fields[1]), started=int(fields[19]))


def _lives(pid: int, state: str) -> bool:
    """Whether anything of a process still runs.

    The first thread of a killed server is a zombie while the others end, and until the last has ended, its sockets
    are open: a connection to one would be taken for an answer of the next server.
    """
    if state not in "ZX":
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def with_descendants(roots: Iterable[Process]) -> list[Process]:
    """The living ones of ``roots`` and everything below them, parents first."""
    children: dict[int, list[Process]] = {}
    for pid in _all_pids():
        stat = _stat(pid)
        if stat and _lives(pid, stat.state):
            children.setdefault(stat.parent, []).append(Process(pid, stat.started))
    found: dict[Process, None] = {}
    waiting = [process for process in roots if process.alive]
    while waiting:
        process = waiting.pop(0)
        if process not in found:
            found[process] = None
            waiting += children.get(process.pid, [])
    return list(found)


def marked(value: str) -> list[Process]:
    """Living processes that carry ``MARKER=value`` in their environment (only those that this user may look at)."""
    wanted = f"{MARKER}={value}".encode()
    found = []
    for pid in _all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        process = Process.of(pid)
        if process and wanted in environment.split(b"\0"):
            found.append(process)
    return found


def kill(roots: Iterable[Process], timeout: float = 10.0) -> list[Process]:
    """SIGKILL ``roots`` and all below them, wait until they are gone; returns what is still there after ``timeout``.

    No polite TERM first: this is the power cut of a node, and what ``down`` removes is thrown away in any case.
    """
    left = with_descendants(roots)
    for process in left:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # gone, or not ours: the caller is told that it is left
            continue
    wait_until(lambda: not any(process.alive for process in left), timeout, interval=0.01)
    return [process for process in left if process.alive]


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    """Poll ``condition`` until it holds (True) or ``timeout`` seconds have passed (False)."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True


@dataclass(frozen=True)
class Daemon:
    """What is needed to start one daemon in the foreground, as a child that outlives us."""

    name: str
    argv: Sequence[str]
    output: Path
    log: Path


class Records:
    """``run/<name>.json``: which process each daemon was started as."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __getitem__(self, name: str) -> Process | None:
        try:
            return Process(**json.loads(self._path(name).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):  # ValueError: cut off by a crash; the marker finds the process
            return None

    def names(self) -> list[str]:
        """All daemons that were ever started here."""
        return sorted(path.stem for path in self._directory.glob("*.json"))

    def alive(self, name: str) -> bool:
        process = self[name]
        return process is not None and process.alive

    def start(self, daemon: Daemon, environment: Mapping[str, str]) -> None:
        """Start ``daemon`` in a session of its own unless it lives already."""
        if self.alive(daemon.name):
            return
        with open(daemon.output, "ab") as output:
            child = subprocess.Popen(
                list(daemon.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
        _children[child.pid] = child
        process = Process.of(child.pid)
        if process is not None:  # else it ended at once; the wait for it says so, with its log
            self._path(daemon.name).write_text(json.dumps(asdict(process)), encoding="utf-8")

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def last_lines(path: Path, count: int = 6) -> str:
    """The end of a log file, for an error message; empty where there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 8192))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])
