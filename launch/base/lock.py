"""One holder at a time, among all hosts that see a directory: of a download, of a run that is being changed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.core import files, strict

BEAT_SECONDS = 10.0
STALE_SECONDS = 300.0
_POLL_SECONDS = 0.5


class SharedLock:
    """An exclusively created file with host, process and time, touched while it is held. (flock is not dependable on
    NFS and Lustre.)

    A holder on this host is gone when its process is; one on another host when nobody has touched the file for
    ``stale_seconds`` of *our* watching: clocks of two hosts may differ by more than that. This is not foolproof: a
    holder that is suspended for longer loses the lock unawares. What is done under the lock must bear that: store
    entries are published by a rename, and submissions are exactly once by their attempts and claims.
    """

    def __init__(
        self,
        path: Path,
        on_wait: Callable[[str], None] = lambda holder: None,
        on_busy: Callable[[str], None] = lambda holder: None,
        stale_seconds: float | None = None,
    ) -> None:
        """
        Args:
            on_wait: called once, with a description of the holder, if another process has the lock.
            on_busy: called when the holder is known to be alive; what it raises ends the waiting.
            stale_seconds: default ``STALE_SECONDS``.
        """
        self._path = path
        self._on_wait = on_wait
        self._on_busy = on_busy
        self._stale_seconds = STALE_SECONDS if stale_seconds is None else stale_seconds
        self._over = path.with_name(f".{path.name}.over")
        self._turn_seen: tuple[object, float] | None = None
        self._token = os.urandom(16).hex()
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._touch, name="lock", daemon=True)

    def __enter__(self) -> SharedLock:
        told = False
        seen: tuple[object, object, float] | None = None
        while not files.create_exclusive(self._path, json.dumps(_me(self._token)) + "\n"):
            holder, mark = read(self._path)
            if holder is None:
                continue  # released just now
            whose = holder.get("token")
            if seen is not None and seen[:2] != (whose, mark) and seen[0] == whose:
                self._on_busy(describe(holder))  # touched while we watched
            if seen is None or seen[:2] != (whose, mark):
                seen = (whose, mark, time.monotonic())
            gone = is_gone(holder)
            if gone or time.monotonic() - seen[2] > self._stale_seconds:
                self._break(holder)
                continue
            if gone is False:
                self._on_busy(describe(holder))
            if not told:
                told = True
                self._on_wait(describe(holder))
            time.sleep(_POLL_SECONDS)
        self._beat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._beat.join()
        holder, _ = read(self._path)
        if holder is not None and holder.get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                os.utime(self._path)
            except OSError:
                continue  # lost or unreachable: the publish step finds out

    def _break(self, holder: dict[str, Any]) -> None:
        """Take the file of a holder that is gone out of the way.

        Several waiters may do so at once, and a slower one must not take away the lock that a faster has made since.
        So one at a time may, and looks once more. On one host the turn is an abstract socket name, which the kernel
        takes back from a process that dies; among hosts it is a second file.
        """
        with socket.socket(socket.AF_UNIX) as turn:
            try:
                turn.bind(f"\0overnight {hashlib.sha256(os.fsencode(self._path)).hexdigest()} {socket.gethostname()}")
            except OSError:
                time.sleep(0.01)
                return
            if not files.create_exclusive(self._over, json.dumps(_me(self._token)) + "\n"):
                self._clear_turn()
                return
            try:
                found, _ = read(self._path)
                if found is not None and found.get("token") == holder.get("token"):
                    self._move_away(holder)
            finally:
                self._over.unlink(missing_ok=True)

    def _clear_turn(self) -> None:
        """The holder of the turn among hosts needs milliseconds, or has died in them."""
        other, mark = read(self._over)
        if other is None:
            return
        if self._turn_seen is None or self._turn_seen[0] != mark:
            self._turn_seen = (mark, time.monotonic())
        if is_gone(other) or time.monotonic() - self._turn_seen[1] > self._stale_seconds:
            self._over.unlink(missing_ok=True)
        time.sleep(0.01)

    def _move_away(self, holder: dict[str, Any]) -> None:
        """A holder that only slept may have released its lock this very moment, and another have made its own: what was
        moved and is not the one judged is put back."""
        aside = self._path.with_name(f".{self._path.name}.{self._token}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        try:
            found = files.read_json(aside)
            if isinstance(found, dict) and found.get("token") != holder.get("token"):
                os.link(aside, self._path)
        except (ValueError, FileExistsError):
            pass  # torn, so it was the one judged; or a third lock is in place already
        finally:
            aside.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any] | None, object]:
    """Content (empty if unreadable) and time of the last touch (ns) of a lock; None if there is none.

    Opened for each look: NFS asks the server then, while an answer of stat may be a minute old.
    """
    try:
        with strict.open_file(path) as stream:
            text, mark = stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None, None
    except ValueError:  # no file
        return {}, None
    try:
        value = strict.parse(text)
    except ValueError:
        value = None
    return (value if isinstance(value, dict) else {}), mark


def describe(holder: dict[str, Any]) -> str:
    """For people."""
    return f"process {holder.get('pid')} on {holder.get('host')}"


def is_gone(holder: dict[str, Any]) -> bool | None:
    """Whether the holder was a process of this machine that no longer runs; None: of another, we cannot tell."""
    pid = holder.get("pid")
    mine = holder.get("host") == socket.gethostname() and holder.get("boot", _boot()) == _boot()
    if not mine or not isinstance(pid, int):
        return None
    if not process_alive(pid):
        return True
    born = _born(pid)
    return born is not None and holder.get("born") is not None and born != holder["born"]


def _me(token: str) -> dict[str, Any]:
    me = os.getpid()
    who = {"host": socket.gethostname(), "boot": _boot(), "pid": me, "born": _born(me)}
    return {**who, "time": time.time(), "token": token}


def _boot() -> str:
    """Tells two machines of one host name apart, and one machine before and after its reboot; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks: tells it from a later one with its number. None where unknown."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` after the command's name, the state first; empty where there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def process_alive(pid: int) -> bool:
    """Whether a process of that id exists on this host and is no zombie."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])
