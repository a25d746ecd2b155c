"""Back ends: one module each. ``load(name)`` imports the one that a stage names; nothing else knows them by name.

One that is not here may be a module of the user's own code (``code:`` of the pipeline).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from typing import cast

from jobs.core.capabilities import Capabilities, Memory
from jobs.training.checkpoints import Completeness
from jobs.training.interface import BackEnd, Rendered, Result, WorkContext

__all__ = ["BackEnd", "Capabilities", "Completeness", "Memory", "Rendered", "Result", "WorkContext", "load"]


def load(name: str, code: Path | None = None) -> BackEnd:
    """Import a back end by name: one of ours, else the module of that name in the user's code.

    Args:
        code: where the user's code lies; default: beside the snapshot of ours in a run.

    Raises:
        LookupError: no such back end, or a module of the user's that is none.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise LookupError(f"not a back end name: {name!r}")
    try:
        return cast(BackEnd, importlib.import_module(f"jobs.backends.{name}"))
    except ModuleNotFoundError as error:
        if error.name != f"jobs.backends.{name}":
            raise
    return _of_user(name, Path(__file__).parents[3] / "user" if code is None else code)


def _of_user(name: str, code: Path) -> BackEnd:
    # From this directory and no other: a name must not bring in whatever is installed under it.
    found = importlib.machinery.PathFinder.find_spec(name, [str(code)])
    if found is None or found.loader is None:
        raise LookupError(f"no back end {name!r}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # as import does, so that it can import itself and be pickled to data workers
    found.loader.exec_module(module)
    if not isinstance(getattr(module, "CAPABILITIES", None), Capabilities) or getattr(module, "NAME", None) != name:
        raise LookupError(f"{found.origin} is not a back end: it has no CAPABILITIES, or its NAME is not {name!r}")
    return cast(BackEnd, module)
