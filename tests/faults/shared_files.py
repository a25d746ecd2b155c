"""The shared file system as the hosts of a simulated site see it.

A call of a job fails once, or is done and its answer is lost; a server is away, or one node has lost it; a host shows
names as they were up to a minute ago, until it changes something in that directory itself; a file system has no hard
links. Each change of a name is handed to the site in the same moment. Dice of its own decide: without such faults a
chain is the same as before.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.faults.world import Actor

if TYPE_CHECKING:
    from tests.faults.site import Site

FEW = 5
"""Calls that fail once: so many end no start."""

LOST = {"link": errno.EEXIST, "mkdir": errno.EEXIST}
"""What a client says of an act whose answer was lost, and which it asked for again; of the others it says EIO."""

READS = ("stat", "lstat", "listdir", "scandir")
CHANGES = ("mkdir", "unlink", "remove", "rmdir", "rename", "replace", "link")
PUBLIC = frozenset({"rename", "replace", "link", "unlink", "rmdir"})
"""What makes an output, a seal or a save appear or go."""


@dataclass
class _Memory:
    """What one host remembers of one directory."""

    since: float
    names: list[str] | None = None
    absent: set[str] = field(default_factory=set)


class _Scan:
    """What ``os.scandir`` returns."""

    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        self._left = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return self._left

    def __next__(self) -> os.DirEntry[str]:
        return next(self._left)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def close(self) -> None:
        pass


def error(code: int, path: Any = None) -> OSError:
    return OSError(code, os.strerror(code), path) if path is not None else OSError(code, os.strerror(code))


class SharedFiles:
    """Below ``root``, for the processes of one site."""

    def __init__(self, site: Site, root: Path) -> None:
        self._site, self._world, self._root = site, site.world, str(root)
        self._dice = random.Random(f"{site.world.seed} files")
        self.rate = self._dice.choice((0.0, 0.0, 0.0005, 0.002))
        self.lag = self._dice.choice((0.0, 0.0, 0.0, 5.0, 30.0, 59.0))
        self.has_links = self._dice.random() < 0.9
        self.failed: Counter[Actor] = Counter()
        """Calls of a process that failed once."""
        self.cut_off: set[Actor] = set()
        """Processes for which everything was away."""
        self._exposed: set[Actor] = set()
        self._memories: dict[tuple[str, str], _Memory] = {}

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """The calls of this process fail from here on: it runs our code of a job."""
        actor = self._world.current
        assert actor is not None
        self._exposed.add(actor)
        try:
            yield
        finally:
            self._exposed.discard(actor)

    # Calls that fail

    def may_fail(self, path: Any = None) -> None:
        """Of an exposed process, before a call is made."""
        actor = self._world.current
        if actor is None or actor not in self._exposed or not self._site.chaos:
            return
        if self._world.now < self._site.files_away_until or actor.host in self._site.without_files:
            self.cut_off.add(actor)
            raise error(errno.ESTALE, path)
        if self._strikes(actor, "call fails once"):
            raise error(self._dice.choice((errno.EIO, errno.ESTALE)), path)

    def _strikes(self, actor: Actor, fault: str) -> bool:
        if not self.rate or not self._site.chaos or self._dice.random() >= self.rate:
            return False
        self.failed[actor] += 1
        self._site.injected[fault] += 1
        return True

    def _answer_lost(self, actor: Actor, name: str, path: Any) -> None:
        if actor in self._exposed and self._strikes(actor, "answer of a server lost"):
            raise error(self._dice.choice((errno.EIO, LOST.get(name, errno.EIO))), path)

    # Names from memory

    def _place(self, path: Any) -> tuple[str, str] | None:
        """Directory and name; None for what is not below the root, and for handles."""
        text = path if isinstance(path, str) else str(path) if isinstance(path, Path) else ""
        if not text.startswith(self._root):
            return None
        directory, _, name = text.rpartition("/")
        return directory, name

    def _caller(self, path: Any, named: dict[str, Any]) -> Actor | None:
        """The process that asks, where it asks the shared file system."""
        actor = self._world.current
        if actor is None or (self._place(path) is None and named.get("dir_fd") is None):
            return None
        return actor

    def _memory(self, host: str, directory: str) -> _Memory:
        found = self._memories.get((host, directory))
        if found is None or self._world.now - found.since > self.lag:
            found = self._memories[host, directory] = _Memory(self._world.now)
        return found

    def _forget(self, host: str, *places: tuple[str, str] | None) -> None:
        for place in places:
            if place is not None:  # also of what lay there under this name
                self._memories.pop((host, place[0]), None)
                self._memories.pop((host, f"{place[0]}/{place[1]}"), None)

    def _looked_up(self, host: str, path: Any, look: Callable[[], Any]) -> Any:
        place = self._place(path) if self.lag else None
        if place is None:  # of an open directory
            return look()
        directory, name = place
        absent = self._memory(host, directory).absent
        if name in absent:
            self._site.injected["name not yet visible"] += 1
            raise error(errno.ENOENT, path)
        try:
            return look()
        except FileNotFoundError:
            absent.add(name)
            raise

    def _listed(self, host: str, path: Any, look: Callable[[], list[Any]]) -> list[Any]:
        """``look`` returns entries or names; of those that came since the last listing none is shown."""
        if not self.lag or self._place(path) is None:
            return look()
        memory, found = self._memory(host, os.fspath(path)), look()
        names = [entry if isinstance(entry, str) else entry.name for entry in found]
        if memory.names is None:
            memory.names = names
        elif set(names) != set(memory.names):
            self._site.injected["old listing"] += 1
            if found and not isinstance(found[0], str):
                return [entry for entry in found if entry.name in memory.names]
            return list(memory.names)
        return found

    # The calls

    def _read(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *given: Any, **named: Any) -> Any:
            actor = self._caller(path, named)
            if actor is None:
                return real(path, *given, **named)
            self.may_fail(path)
            if name == "listdir":
                return self._listed(actor.host, path, lambda: sorted(real(path)))  # on any machine in the same order
            if name == "scandir":
                return _Scan(self._listed(actor.host, path, lambda: sorted(real(path), key=lambda one: one.name)))
            return self._looked_up(actor.host, path, lambda: real(path, *given, **named))

        return call

    def _change(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            actor = self._caller(given[0], named)
            if actor is None:
                return real(*given, **named)
            if name in ("rename", "replace", "link") or actor in self._site.doomed:
                self._world.point()
                self._site.stands_still()
            self.may_fail(given[0])
            places = [place for one in given[:2] if (place := self._place(one)) is not None]
            self._forget(actor.host, *places)
            if name == "link" and not self.has_links:
                self._site.injected["no hard links"] += 1
                raise error(errno.EPERM, given[0])
            result = real(*given, **named)
            if name in PUBLIC:
                self._site.changes(*places)
            self._answer_lost(actor, name, given[0])
            return result

        return call

    def _open(self, real: Callable[..., Any], makes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            actor = self._caller(path, named)
            if actor is None:
                return real(path, *given, **named)
            self.may_fail(path)
            if not makes(*given, **named):
                return self._looked_up(actor.host, path, lambda: real(path, *given, **named))
            self._forget(actor.host, self._place(path))
            return real(path, *given, **named)

        return call

    def _write(self, real: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def write(handle: int, data: Any) -> int:
            actor = self._world.current
            if actor is not None and actor in self._exposed and self._strikes(actor, "write cut short"):
                real(handle, data[: len(data) // 2])
                raise error(errno.EIO)
            return real(handle, data)

        return write

    def _fsync(self, handle: int) -> None:
        self.may_fail()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """All calls of Python on files go through here."""
        opened, opening = builtins.open, os.open
        text = self._open(opened, lambda mode="r", *given, **named: mode[0] in "wax")
        replaced: list[tuple[Any, str, Any]] = [
            (os, "open", self._open(opening, lambda flags, *given, **named: bool(flags & os.O_CREAT))),
            (os, "write", self._write(os.write)),
            (os, "fsync", self._fsync),
            (builtins, "open", text),
            (io, "open", text),
        ]
        replaced += [(os, name, self._read(name, getattr(os, name))) for name in READS]
        replaced += [(os, name, self._change(name, getattr(os, name))) for name in CHANGES]
        with ExitStack() as stack:
            for module, name, value in replaced:
                stack.enter_context(mock.patch.object(module, name, value))
            yield
