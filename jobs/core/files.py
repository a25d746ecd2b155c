"""File-system steps that survive a kill or a power cut: the only writers of small shared files.

Why not plain ``open().write()``: a reader on another node must see the old text or the new text, never half of it,
and a name that we reported as written must still be there after the machine lost power.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.core import strict

CREATION_SECONDS = 2.0
"""How long a reader waits for the content of a file whose name is there."""

ABANDONED_SECONDS = 30.0
"""A file made without hard links that stays empty for so long lost its maker between its name and its content."""

SETTLED_NS = 2_000_000_000
"""What changed within the last seconds may change once more and keep its time of change."""

FileState = tuple[int, ...]
"""What changes with a file or directory: see ``state``."""


def state(path: str | Path) -> FileState | None:
    """Inode, size, and times of change of a file or directory; None: it is missing. Unlike the mtime, nothing can set
    the ctime back."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    handle = os.open(path, flags, mode)
    try:
        yield handle
    finally:
        os.close(handle)


def fsync_directory(directory: Path) -> None:
    """Make a rename or a creation in ``directory`` durable."""
    with _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as handle:
        os.fsync(handle)


def make_directory(path: Path, levels: int = 1) -> None:
    """Make a directory and those above it, their names on disk. ``levels``: of so many also where they are there: who
    made them may have ended before that."""
    for directory in _made(path, levels):
        fsync_directory(directory.parent)


def _made(path: Path, levels: int = 0) -> list[Path]:
    """Those of the directories whose names are not on disk for certain, the innermost first: flushed in this order, all
    of them are in one record of a journaling file system."""
    chain = [path, *path.parents]
    missing = next(number for number, directory in enumerate(chain) if directory.is_dir())
    found = chain[: max(missing, levels)]
    for directory in reversed(found):
        try:
            os.mkdir(directory)
        except FileExistsError:
            if not directory.is_dir():
                raise
    return found


def take_away(directory: Path) -> None:
    """Remove a directory in one step, also for others that look or write there by its name: rename, then remove."""
    aside = directory.with_name(f".{directory.name}.{os.uname().nodename}.{os.getpid()}.{time.monotonic_ns()}.gone")
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, aside)
    shutil.rmtree(aside, ignore_errors=True)


def flush_tree(directory: Path) -> None:
    """Have everything below ``directory`` on disk, before a rename makes it look complete. Many at a time: a journaling
    file system writes one record for all that wait."""
    from concurrent.futures import ThreadPoolExecutor

    roots, paths = [], []
    for root, _, names in os.walk(directory):
        roots.append(Path(root))
        paths += [path for name in names if not os.path.islink(path := os.path.join(root, name))]
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(flush, paths))
        list(pool.map(fsync_directory, roots))


def drop_cache(path: Path) -> None:
    """Have the next reading of a file come from the disk, as far as the system allows it."""
    with _opened(path, os.O_RDONLY) as handle:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def flush(path: str | Path) -> None:
    """Flush a file to disk, written by any process."""
    with _opened(path, os.O_RDONLY) as handle:
        os.fsync(handle)


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` so that ``path`` is the old or the new content at every instant.

    The temporary file lies in the same directory (a rename across file systems is not atomic) and carries host and
    process id, so that two writers do not share it.

    Raises:
        OSError: the directory is missing or full; ``path`` is then unchanged.
    """
    temporary = _temporary(path, os.uname().nodename, os.getpid())
    try:
        _write_whole(temporary, text, os.O_TRUNC, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def _temporary(path: Path, *writer: object) -> Path:
    return path.with_name(".".join((f".{path.name}", *map(str, writer), "tmp")))


def remove_temporaries(path: Path) -> None:
    """Remove what writes of ``path`` left whose change of names failed, and the removal after it, too.

    Raises:
        OSError: it cannot be removed.
    """
    for left in path.parent.glob(_temporary(path.with_name(glob.escape(path.name)), "*").name):
        left.unlink(missing_ok=True)


def write_together(directory: Path, *contents: tuple[Path, str, int]) -> None:
    """Make a directory with files in it (path, text and mode of each) that nobody reads yet. All are on disk at the
    end, by one record of a journaling file system."""
    made = _made(directory)
    with contextlib.ExitStack() as all_open:
        handles = []
        for path, text, mode in contents:
            handles.append(all_open.enter_context(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)))
            _write_all(handles[-1], _encoded(text))
        for handle in handles:
            os.fsync(handle)
    for parent in (directory, *(one.parent for one in made)):
        fsync_directory(parent)


def _write_whole(path: Path, text: str, flag: int, mode: int = 0o644) -> os.stat_result:
    """Make a file with ``text``, which is on disk at the end; what fstat says of it."""
    with _opened(path, os.O_WRONLY | os.O_CREAT | flag, mode) as handle:
        _write_all(handle, _encoded(text))
        os.fsync(handle)
        return os.fstat(handle)


def _encoded(text: str) -> bytes:
    # "?" for half a character, as names of files may have it that are not UTF-8: a verdict must get to disk.
    return text.encode("utf-8", "replace")


def _write_all(handle: int, data: bytes) -> None:
    # A nearly full disk takes the beginning and says so by the count alone; asked again, it gives the reason.
    while data:
        data = data[os.write(handle, data) :]


def write_json(path: Path, value: Any) -> None:
    """``write_atomic`` of ``value`` as indented JSON."""
    write_atomic(path, json_text(value))


def write_record(path: Path, value: Any) -> None:
    """``write_atomic`` of ``record_text``."""
    write_atomic(path, record_text(value))


def record_text(value: Any) -> str:
    """``value``, with dataclasses in it, as one line of JSON: the fast encoder does not indent, and each stage of a
    submission has such a file."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=vars) + "\n"


def json_text(value: Any) -> str:
    """``value`` as indented JSON."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def create_exclusive(path: Path, text: str) -> bool:
    """Create ``path`` with ``text`` if nobody has; True for the one process that did.

    The content is complete before the name appears (written aside, then hard-linked, which fails if the name exists),
    so a reader never finds an empty claim. Falls back to O_EXCL where the file system has no hard links.
    """
    temporary = _temporary(path, os.uname().nodename, os.getpid(), time.monotonic_ns())
    try:
        _write_whole(temporary, text, os.O_EXCL)
        os.link(temporary, path)
    except FileExistsError:
        # link(2): an NFS server may have made the link and lost the answer; the client asks again and is told that the
        # name exists. The link count knows.
        if os.stat(temporary).st_nlink != 2:
            return False
    except OSError as error:
        if error.errno in NO_LINKS:
            return _create_without_links(path, text)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return True


NO_LINKS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EMLINK)


def _create_without_links(path: Path, text: str) -> bool:
    """The name is there before its content. A maker that died in between leaves an empty file, which the next reader
    takes away; one that was only slow finds that its file has gone from under its name."""
    try:
        mine = _write_whole(path, text, os.O_EXCL)
    except FileExistsError:
        if not _take_away_abandoned(path):
            return False
        return _create_without_links(path, text)
    fsync_directory(path.parent)
    try:
        return os.path.samestat(os.stat(path), mine)
    except FileNotFoundError:
        return False


def _take_away_abandoned(path: Path) -> bool:
    """Whether the empty file of a maker that is gone was taken away, watched by our own clock."""
    try:
        found = os.stat(path)
        end = time.monotonic() + ABANDONED_SECONDS
        while found.st_size == 0 and time.monotonic() < end:
            time.sleep(0.05)
            found = os.stat(path)
        if found.st_size:
            return False
        aside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.abandoned")
        os.rename(path, aside)
        os.unlink(aside)
    except FileNotFoundError:
        pass  # another was quicker
    return True


def mark(directory: Path) -> os.stat_result:
    """What a file has that is made in ``directory`` now, and removed: the time is by the clock of the file system.

    Raises:
        FileNotFoundError: no such directory.
    """
    path = directory / f".{os.uname().nodename}.{os.getpid()}.{time.monotonic_ns()}.look"
    try:
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) as handle:
            return os.fstat(handle)
    finally:
        path.unlink(missing_ok=True)


def fresh_names(directory: Path) -> list[str]:
    """Names in ``directory`` as the server has them. A client of NFS may show a listing that is a minute old; a change
    of its own in the directory makes it ask again.

    Raises:
        FileNotFoundError: no such directory.
    """
    mark(directory)
    return os.listdir(directory)


def ask_again(directory: Path) -> None:
    """Have the next look at a directory, which may not be there, show what the server has."""
    with contextlib.suppress(FileNotFoundError):
        fresh_names(directory)


read_json = strict.read


def is_abandoned(path: Path) -> bool:
    """Whether a file that ``create_exclusive`` made is empty and stays so. Where the file system has no hard links its
    name is there before its content, so an empty one is looked at again for a moment."""
    end = time.monotonic() + CREATION_SECONDS
    while path.stat().st_size == 0:
        if time.monotonic() >= end:
            return True
        time.sleep(0.05)
    return False


def read_created_json(path: Path) -> Any:
    """``read_json`` of a file that ``create_exclusive`` made, once its content is there.

    Raises:
        FileNotFoundError, ValueError: as ``read_json``.
    """
    is_abandoned(path)
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
    line = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    existed = path.exists()
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as handle:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        _write_all(handle, line)
        if durable:
            os.fsync(handle)
    if durable and not existed:
        fsync_directory(path.parent)


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file; none where it is missing, or no file that can be read."""
    stream = strict.open_if_there(path)
    if stream is None:
        return
    with io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as lines:
        yield from lines


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSON-lines file; a torn line (no JSON object) is passed over."""
    for line in read_lines(path):
        try:
            value = strict.parse(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def tail(path: Path, window: int) -> list[str]:
    """The lines in the last ``window`` bytes of a file that is still written; none where there is no file yet."""
    try:
        with strict.open_file(path) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - window))
            return stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        strict.passed_over(error)
        return []


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
