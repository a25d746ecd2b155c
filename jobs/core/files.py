"""File-system steps that survive a kill or a power cut: the only writers of small shared files.

Why not plain ``open().write()``: a reader on another node must see the old text or the new text, never half of it,
and a name that we reported as written must still be there after the machine lost power.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CREATION_SECONDS = 2.0
"""How long the maker of a file may take from its name to its content."""


def fsync_directory(directory: Path) -> None:
    """Make a rename or a creation in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` so that ``path`` is the old or the new content at every instant.

    The temporary file lies in the same directory (a rename across file systems is not atomic) and carries the
    process id, so that two writers do not share it.

    Raises:
        OSError: the directory is missing or full; ``path`` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """``write_atomic`` of ``value`` as indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", mode)


def create_exclusive(path: Path, text: str) -> bool:
    """Create ``path`` with ``text`` if nobody has; True for the one process that did.

    The content is complete before the name appears (written aside, then hard-linked, which fails if the name exists),
    so a reader never finds an empty claim. Falls back to O_EXCL where the file system has no hard links.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    with open(temporary, "x", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        # link(2): an NFS server may have made the link and lost the answer; the client asks again and is told that the
        # name exists. The link count knows.
        if os.stat(temporary).st_nlink != 2:
            return False
    except PermissionError:
        return _create_without_links(path, text)
    except OSError as error:
        if error.errno in (95, 38, 1, 31):  # EOPNOTSUPP, ENOSYS, EPERM, EMLINK: no hard links here
            return _create_without_links(path, text)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return True


def _create_without_links(path: Path, text: str) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fsync_directory(path.parent)
    return True


def read_json(path: Path) -> Any:
    """Parsed content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON; the message names the file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def read_created_json(path: Path) -> Any:
    """``read_json`` of a file that ``create_exclusive`` made. Where the file system has no hard links its name is there
    before its content, so an empty one is read again for a moment.

    Raises:
        FileNotFoundError, ValueError: as ``read_json``.
    """
    end = time.monotonic() + CREATION_SECONDS
    while path.stat().st_size == 0 and time.monotonic() < end:
        time.sleep(0.05)
    return read_json(path)


def read_json_or_none(path: Path) -> Any:
    """Like ``read_json`` but None where the file is missing."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None


def append_json_line(path: Path, value: Any, durable: bool = True) -> None:
    """Append one JSON line in a single write (O_APPEND), fsynced unless ``durable`` is False.

    A torn last line (power cut) is closed first, so that it cannot swallow the new one.
    """
    line = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()
    existed = path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        # A nearly full disk takes the beginning and says so by the count alone; asked again, it gives the reason.
        while line:
            line = line[os.write(handle, line) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    if durable and not existed:
        fsync_directory(path.parent)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSON-lines file; a torn line (no JSON object) is passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def wait_for(path: Path, seconds: float, interval: float = 0.5) -> bool:
    """Wait at most ``seconds`` for ``path`` to be visible here (NFS caches a directory for a while).

    Listing the parent makes the client revalidate its cached directory.
    """
    end = time.monotonic() + seconds
    while True:
        if path.exists():
            return True
        if time.monotonic() >= end:
            return False
        try:
            os.listdir(path.parent)
        except OSError:
            pass
        time.sleep(interval)
