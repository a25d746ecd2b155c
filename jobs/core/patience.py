"""Errors of a shared file system that pass by themselves: which they are, and how long a start waits for them.

A server that fails over, a mount that comes late, a directory that this client lists from memory: none of them says
anything about the work. This module alone decides which errors are of that kind.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NETWORK = frozenset({
    errno.ECOMM, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ETIMEDOUT,
})  # fmt: skip
"""What a client of a file system says of the way to its server; a program's own connections say the same."""

PASSING = NETWORK | {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENODEV, errno.ENOLCK, errno.ENOTCONN,
    errno.ENXIO, errno.EREMOTEIO, errno.ESHUTDOWN, errno.ESTALE,
}  # fmt: skip
"""What NFS, Lustre and GPFS answer while a server is away; ``EACCES`` where its tickets or its list of users are."""

TOTAL_SECONDS = 60.0
"""What one prologue or finish waits for, over all its calls: an attribute of NFS is renewed after 60 s at most."""

_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 10.0


class NotMounted(OSError):
    """A directory that holds everything is not there: the node has not mounted its file system."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENODEV, f"{path} is not there: is its file system mounted on {os.uname().nodename}?")


def passes(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, may be over in a moment."""
    return _cause(error) is not None


def may_be_a_connection(error: BaseException) -> bool:
    """Whether an error that ``passes`` names no file and may be of a connection between processes."""
    found = _cause(error)
    return found is not None and found.errno in NETWORK and found.filename is None


def _cause(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return error
        error = error.__cause__
    return None


def check_mounted(path: Path) -> None:
    """Tell a file system that is missing from a file that is.

    Raises:
        NotMounted: ``path`` is not a directory here.
    """
    if not path.is_dir():
        raise NotMounted(path)


class Patience:
    """The seconds that all calls of one prologue or one finish may wait together."""

    def __init__(self, seconds: float | None = None) -> None:
        self._left = TOTAL_SECONDS if seconds is None else seconds
        self._pause = _FIRST_SECONDS

    def wait(self, for_path: Path | None = None) -> bool:
        """Sleep, longer each time; False where the seconds are used up. Listing the directory of ``for_path`` makes a
        client of NFS ask its server again."""
        if self._left <= 0:
            return False
        pause = min(self._pause, self._left)
        time.sleep(pause)
        self._left -= pause
        self._pause = min(2 * self._pause, _LONGEST_SECONDS)
        if for_path is not None:
            with suppress(OSError):
                os.listdir(for_path.parent)
        return True

    def call(self, action: Callable[[], T], again: Callable[[Exception], bool] = passes) -> T:
        """What ``action`` returns, called again after errors that pass while there is time.

        Raises:
            Exception: of the last call.
        """
        while True:
            try:
                return action()
            except Exception as error:
                path = getattr(error, "path", None)
                if not again(error) or not self.wait(path if isinstance(path, Path) else None):
                    raise
