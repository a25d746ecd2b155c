"""Names and texts are UTF-8, whatever the locale of a shell or a node says."""

from __future__ import annotations

import os
import sys


def ensure() -> None:
    """Start this Python again in its UTF-8 mode where it would refuse names or texts that are not ASCII: the locale may
    have been forced (``LC_ALL``, ``PYTHONUTF8=0``, ``PYTHONIOENCODING``). The same process, with the same arguments."""
    encodings = {sys.getfilesystemencoding(), *(stream.encoding for stream in (sys.stdout, sys.stderr) if stream)}
    if sys.flags.utf8_mode or {name.lower().replace("-", "") for name in encodings} <= {"utf8"}:
        return
    env = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**env, "PYTHONUTF8": "1"})
