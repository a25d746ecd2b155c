"""Free port blocks, also when several clusters are brought up at the same moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from launch.base.errors import InputError

#: Below 32768, where Linux takes the ports of outgoing connections from.
_FIRST, _LAST = 17000, 32000


def free(port: int) -> bool:
    """Whether nobody listens on ``port`` of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not matter
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _reserve(base: int) -> socket.socket | None:
    # An abstract socket name has one owner on the machine, of any user, and the kernel frees it when the owner dies:
    # it keeps two `up` apart in the seconds between choosing ports and listening on them.
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0overnight-devcluster-{base}")
    except OSError:
        lock.close()
        return None
    return lock


@contextmanager
def block(offsets: tuple[int, ...], size: int, wanted: int | None = None) -> Iterator[int]:
    """Base of a block whose ``base + offset`` are all free, reserved until the context ends.

    Args:
        offsets: the ports that will be listened on, relative to the base.
        size: distance between two blocks.
        wanted: take this base and no other.

    Raises:
        InputError: ``wanted`` is in use, or no block is free.
    """
    if wanted is not None and not 1024 <= wanted <= 65535 - size:
        raise InputError(f"--port {wanted}: must be 1024 to {65535 - size}")
    for base in [wanted] if wanted is not None else range(_FIRST, _LAST, size):
        lock = _reserve(base)
        if lock is None:
            continue
        with lock:
            if all(free(base + offset) for offset in offsets):
                yield base
                return
    if wanted is not None:
        busy = [wanted + offset for offset in offsets if not free(wanted + offset)]
        raise InputError(
            f"ports {', '.join(map(str, busy)) or wanted} are in use", hint="leave --port out: a free block is picked"
        )
    raise InputError(f"no free block of ports between {_FIRST} and {_LAST}", hint="choose one: --port N")
