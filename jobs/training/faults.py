"""Faults of the machine that numerical libraries report in words of their own, as the errors that Python has for them.

Without this a full disk or a model that is too large would read as a fault in the code.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL = (
    "No space left on device",  # safetensors: "I/O error: No space left on device (os error 28)"
    "Disk quota exceeded",
    "unexpected pos",  # torch.save: a write of its archive came back short
)
NO_MEMORY = "can't allocate memory"
"""Of the machine; that of a GPU has a class of its own, by its words (``jobs.core.symptoms``)."""


@contextmanager
def named() -> Iterator[None]:
    """Raise ``OSError`` (ENOSPC) or ``MemoryError`` in place of what torch and safetensors raise for these faults."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        text = str(error)
        if any(mark in text for mark in DISK_FULL):
            raise OSError(errno.ENOSPC, text) from error
        if NO_MEMORY in text:
            raise MemoryError(text) from error
        raise
