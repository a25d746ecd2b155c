"""One download at a time for a store entry, among all hosts that see the workspace."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.core import files

BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
_POLL_SECONDS = 0.5


class FetchLock:
    """An exclusively created file with host, process and time, touched while it is held.

    A holder on this host is gone when its process is; one on another host when nobody has touched the file for
    ``STALE_SECONDS`` of *our* watching (clocks of two hosts may differ). This is not foolproof: a holder that is
    suspended for longer loses the lock unawares. Nothing breaks then, for entries are published by a rename and
    sealed by what is really there, but bytes may be downloaded twice.
    """

    def __init__(self, path: Path, on_wait: Callable[[str], None] = lambda holder: None) -> None:
        """``on_wait`` is called once, with the holder in words, if somebody else has the lock."""
        self._path = path
        self._on_wait = on_wait
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._touch, name="fetch-lock", daemon=True)

    def __enter__(self) -> FetchLock:
        content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
            "time": time.time(),
            "token": self._token,
        }
        told = False
        seen: tuple[object, float] | None = None
        while not files.create_exclusive(self._path, json.dumps(content) + "\n"):
            holder, mark = self._read()
            if holder is None:
                continue  # released just now
            if seen is None or seen[0] != mark:
                seen = (mark, time.monotonic())
            if _is_gone(holder) or time.monotonic() - seen[1] > STALE_SECONDS:
                self._break(holder)
                continue
            if not told:
                told = True
                self._on_wait(f"process {holder.get('pid')} on {holder.get('host')}")
            time.sleep(_POLL_SECONDS)
        self._beat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._beat.join()
        holder, _ = self._read()
        if holder is not None and holder.get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                os.utime(self._path)
            except OSError:
                continue  # lost or unreachable: the publish step finds out

    def _read(self) -> tuple[dict[str, Any] | None, object]:
        """Content (empty if unreadable) and a mark that changes with every beat; None if there is no lock."""
        try:
            mark = self._path.stat().st_mtime_ns
            text = self._path.read_text()
        except FileNotFoundError:
            return None, None
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        return (value if isinstance(value, dict) else {}), mark

    def _break(self, holder: dict[str, Any]) -> None:
        """Take the file of a holder that is gone out of the way.

        Two waiters may do so at once, and the slower one must not take away the lock that the faster one made since:
        whoever moved a file that is not the one judged puts it back.
        """
        aside = self._path.with_name(f".{self._path.name}.{self._token}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        try:
            if files.read_json(aside).get("token") != holder.get("token"):
                os.link(aside, self._path)
        except (ValueError, FileExistsError):
            pass  # torn, so it was the one judged; or a third lock is in place already
        finally:
            aside.unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks, which tells it from a later one with its number; None where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host that no longer runs."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    born = _born(pid)
    return born is not None and holder.get("born") is not None and born != holder["born"]
