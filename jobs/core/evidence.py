"""What an answer of this process depends on: its keeper can tell by it when the answer is out of date.

Python reports every file that it opens and every directory that it lists (PEP 578), whichever library does it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_FILES = ("open", "os.listdir", "os.scandir")
_OUTSIDE = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo",
)  # fmt: skip
"""What another process or machine says is in no file."""


class Evidence:
    """Watches this process from its making on; it cannot be taken away again."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._is_whole = True
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILES:
            if isinstance(arguments[0], (str, bytes, os.PathLike)):
                self._seen.add(os.path.abspath(os.fsdecode(arguments[0])))
        elif event in _OUTSIDE:
            self._is_whole = False

    def as_json(self) -> dict[str, Any]:
        """``executable``: this interpreter. ``paths``: files and directories that decided what it said, those that were
        not there included; None where another process or machine had a part in it."""
        if not self._is_whole:
            return {"executable": sys.executable, "paths": None}
        library = os.path.dirname(os.__file__)
        modules = [found for module in list(sys.modules.values()) if (found := getattr(module, "__file__", None))]
        paths = {*self._seen, *map(os.path.abspath, [*modules, *sys.path, *_paths_files()])}
        # The standard library is that of the interpreter; compiled modules are named by their sources.
        kept = {path for path in paths if not (_is_standard(path, library) or path.endswith(".pyc"))}
        kept |= {os.__file__, sys.executable, os.path.join(sys.prefix, "pyvenv.cfg")}
        return {"executable": sys.executable, "paths": sorted(kept)}


def _paths_files() -> list[str]:
    """Files by which an environment adds to ``sys.path``; they were read before this module."""
    return [
        os.path.join(directory, name)
        for directory in sys.path
        if os.path.isdir(directory)
        for name in os.listdir(directory)
        if name.endswith(".pth")
    ]


def _is_standard(path: str, library: str) -> bool:
    inside = path.startswith(library + os.sep) and "-packages" not in path[len(library) :]
    return inside and os.path.isfile(path)
