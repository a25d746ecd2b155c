"""Back end of the data stages: standard library and polib, in the core environment, one process."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from jobs.backends import Capabilities, Result, WorkContext
from jobs.core.spec import StageSpec

NAME = "data"
CAPABILITIES = Capabilities(
    kinds=frozenset({"corpus", "instructions", "preferences"}),
    formats_in=frozenset({"wheels"}),
    formats_out=frozenset({"corpus", "instructions", "preferences"}),
)


def probe() -> dict[str, str]:
    """Versions that decide the result."""
    try:
        polib = importlib.metadata.version("polib")
    except importlib.metadata.PackageNotFoundError:
        polib = "missing"
    return {"python": platform.python_version(), "polib": polib}


def behaviour(checkpoint: Path) -> dict[str, Any] | None:
    """Data has no tokenizer."""
    return None


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Build the data set of the stage into ``ctx.output``.

    Raises:
        DataError: the source is not what it has to be.
    """
    import data_prep.build

    if ctx.rank != 0:
        return Result("done")
    return Result("done", metrics=dict(data_prep.build.prepare(spec, ctx.output, ctx.progress)))
