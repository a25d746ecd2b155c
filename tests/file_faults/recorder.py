"""Writes down every call that changes the disk, and makes from them each state that a kill or a power cut can leave.

``recording`` replaces the functions of ``os`` that change files while the product works, in this process. What was
recorded is then played, call by call, on a model of two layers: what the page cache holds (a kill loses none of it) and
what has reached the disk (a power cut loses the rest). The rules are those of POSIX, which are harsher than a usual
journaling file system: data is on disk after an fsync of its file, a name after an fsync of its directory.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest


class Loss(str, Enum):
    """What a crash leaves."""

    KILL = "kill"  # all that was done; of the write under way half
    CUT = "cut"  # what has been flushed, and nothing else
    NAMES = "names"  # all names, and of data only what has been flushed
    TORN = "torn"  # all names; of data that has not been flushed half, the rest zeros


@dataclass(frozen=True)
class Call:
    """A call that changes the disk. ``mark``: no call, but something that was true from here on."""

    name: str
    path: str
    other: str = ""
    data: bytes = b""
    truncates: bool = False
    mark: Any = None


@dataclass
class _File:
    now: bytes = b""
    flushed: bytes = b""


@dataclass
class _Directory:
    now: dict[str, Any] = field(default_factory=dict)
    flushed: dict[str, Any] = field(default_factory=dict)


class Disk:
    """The model, for everything below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Directory()

    def play(self, call: Call) -> None:
        if call.name == "mark":
            return
        if call.name == "fsync":
            node = self._at(call.path)
            if isinstance(node, _File):
                node.flushed = node.now
            elif node is not None:
                node.flushed = dict(node.now)
            return
        parent, name = self._parent(call.path)
        if call.name == "mkdir":
            parent.now[name] = _Directory()
        elif call.name == "symlink":
            parent.now[name] = call.other
        elif call.name == "open":
            known = parent.now.setdefault(name, _File())
            if call.truncates:
                known.now = b""
        elif call.name == "write":
            parent.now[name].now += call.data
        elif call.name in ("unlink", "rmdir"):
            parent.now.pop(name)
        elif call.name == "link":
            other, new = self._parent(call.other)
            other.now[new] = parent.now[name]
        elif call.name == "rename":
            other, new = self._parent(call.other)
            other.now[new] = parent.now.pop(name)

    def _parts(self, path: str) -> tuple[str, ...]:
        return Path(path).relative_to(self._root).parts

    def _at(self, path: str) -> Any:
        node: Any = self._top
        for part in self._parts(path):
            node = node.now.get(part) if isinstance(node, _Directory) else None
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        *above, name = self._parts(path)
        node = self._top
        for part in above:
            node = node.now[part]
        return node, name

    def write_out(self, loss: Loss, next_call: Call | None = None) -> None:
        """Make the directory ``root`` what this crash leaves; ``next_call`` was under way."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir()
        self._write(self._top, self._root, loss)
        if loss is Loss.KILL and next_call is not None and next_call.name == "write":
            with open(next_call.path, "ab") as stream:
                stream.write(next_call.data[: len(next_call.data) // 2])

    def _write(self, node: _Directory, path: Path, loss: Loss) -> None:
        for name, child in (node.flushed if loss is Loss.CUT else node.now).items():
            if isinstance(child, _Directory):
                (path / name).mkdir()
                self._write(child, path / name, loss)
            elif isinstance(child, str):
                (path / name).symlink_to(child)
            else:
                (path / name).write_bytes(_left(child, loss))


def _left(child: _File, loss: Loss) -> bytes:
    if loss is Loss.KILL:
        return child.now
    if loss is Loss.TORN and child.now.startswith(child.flushed):
        new = child.now[len(child.flushed) :]
        return child.flushed + new[: len(new) // 2] + bytes(len(new) - len(new) // 2)
    return child.flushed


class Recorder:
    """The calls so far. ``mark`` notes what must hold after any later crash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[Call] = []
        self._paths: dict[int, str] = {}

    def mark(self, value: Any) -> None:
        self.calls.append(Call("mark", "", mark=value))

    def _add(self, name: str, path: str, **more: Any) -> None:
        if self._is_inside(path):
            self.calls.append(Call(name, path, **more))

    def _is_inside(self, path: str) -> bool:
        return (Path(path).is_relative_to(self.root) and Path(path) != self.root) or path == str(self.root)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the functions of ``os``, and the copy of ``shutil`` by one that uses them."""
        self._install_handles(patch)
        self._install_names(patch)
        patch.setattr(shutil, "copyfile", _copied)
        # It decides by the very functions that were there at its import whether it may work by handles.
        patch.setattr(shutil, "_use_fd_functions", False, raising=False)

    def _install_handles(self, patch: pytest.MonkeyPatch) -> None:
        real_open, real_write, real_fsync, real_close = os.open, os.write, os.fsync, os.close

        def opening(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            name = _full(path, dir_fd)
            existed = os.path.lexists(name)
            handle = real_open(path, flags, mode, dir_fd=dir_fd)
            self._paths[handle] = name
            if flags & os.O_ACCMODE != os.O_RDONLY and (not existed or flags & os.O_TRUNC):
                self._add("open", name, truncates=bool(flags & os.O_TRUNC))
            return handle

        def writing(handle: int, data: Any) -> int:
            count = real_write(handle, data)
            if handle in self._paths:
                self._add("write", self._paths[handle], data=bytes(data[:count]))
            return count

        def flushing(handle: int) -> None:
            real_fsync(handle)
            if handle in self._paths:
                self._add("fsync", self._paths[handle])

        def closing(handle: int) -> None:
            self._paths.pop(handle, None)
            real_close(handle)

        for name, function in {"open": opening, "write": writing, "fsync": flushing, "close": closing}.items():
            patch.setattr(os, name, function)

    def _install_names(self, patch: pytest.MonkeyPatch) -> None:
        for name, call in {"mkdir": "mkdir", "unlink": "unlink", "remove": "unlink", "rmdir": "rmdir"}.items():
            patch.setattr(os, name, self._one_path(call, getattr(os, name)))
        for name, call in {"rename": "rename", "replace": "rename", "link": "link"}.items():
            patch.setattr(os, name, self._two_paths(call, getattr(os, name)))
        real_symlink = os.symlink

        def symlink(aim: Any, path: Any, *arguments: Any, **options: Any) -> None:
            real_symlink(aim, path, *arguments, **options)
            self._add("symlink", _full(path), other=os.fsdecode(aim))

        patch.setattr(os, "symlink", symlink)

    def _one_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def done(path: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
            found = real(path, *arguments, dir_fd=dir_fd, **options)
            self._add(name, _full(path, dir_fd))
            return found

        return done

    def _two_paths(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def done(one: Any, other: Any, **options: Any) -> Any:
            found = real(one, other, **options)
            self._add(name, _full(one), other=_full(other))
            for handle, path in self._paths.items():
                if name == "rename" and Path(path).is_relative_to(_full(one)):
                    self._paths[handle] = _full(other) + path[len(_full(one)) :]
            return found

        return done


def _full(path: Any, dir_fd: int | None = None) -> str:
    text = os.fsdecode(path)
    if dir_fd is not None:
        text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
    return os.path.abspath(text)


def _copied(source: Any, target: Any, **options: Any) -> Any:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(handle, Path(source).read_bytes())
    os.close(handle)
    return target


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Record what is done below ``root`` (which must be empty)."""
    assert not any(root.iterdir())
    found = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        found.install(patch)
        yield found


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Everything below ``root``: content of files, aim of links, None of directories."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if stat.S_ISDIR(path.lstat().st_mode) else path.read_bytes()
    return found


@dataclass(frozen=True)
class Crash:
    """One state: the calls before it, the marks among them, and what was lost."""

    number: int
    loss: Loss
    marks: tuple[Any, ...]
    at: str

    def __str__(self) -> str:
        return f"{self.loss.value} at call {self.number}, before {self.at}"


def crashes(found: Recorder, every: int = 1, first: int = 0) -> Iterator[Crash]:
    """Make each state in turn (or each ``every``-th, from ``first`` on) and yield what it is."""
    disk, marks, count = Disk(found.root), [], 0
    for number, call in enumerate([*found.calls, None]):
        for loss in Loss:
            if count % every == first % every:
                disk.write_out(loss, call)
                at = "the end" if call is None else f"{call.name} {call.path} {call.other}".strip()
                yield Crash(number, loss, tuple(marks), at)
            count += 1
        if call is not None:
            disk.play(call)
            if call.name == "mark":
                marks.append(call.mark)
