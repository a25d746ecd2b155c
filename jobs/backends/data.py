"""Back end of the data stages: standard library and polib, in the core environment, one process.

A stage with the setting ``prepare`` needs the extra ``data`` there, and uses all cores of its job.
"""

from __future__ import annotations

import platform

from jobs.core.capabilities import Capabilities
from jobs.core.spec import StageSpec
from jobs.training.interface import Result, WorkContext, versions

NAME = "data"
_DECIDE = ("polib", "tokenizers", "transformers", "jinja2", "ftfy", "py3langid")
CAPABILITIES = Capabilities(
    kinds=frozenset({"corpus", "instructions", "preferences"}),
    formats_in=frozenset({"wheels"}),
    formats_out=frozenset({"corpus", "instructions", "preferences"}),
    revision=2,  # 1 read control tokens in the texts of corpora as control tokens
)


def probe() -> dict[str, str]:
    """Versions that decide the result. tiktoken's is none: what it gives is proven to be what tokenizers gives."""
    return {"python": platform.python_version(), **dict.fromkeys(_DECIDE, "missing"), **versions(*_DECIDE)}


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Build the data set of the stage into ``ctx.output``.

    Raises:
        DataError: the source is not what it has to be.
    """
    import data_prep.build

    if ctx.rank != 0:
        return Result("done")
    return Result("done", metrics=dict(data_prep.build.prepare(spec, ctx.output, ctx.progress, spec.store_paths.work)))
