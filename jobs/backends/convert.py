"""Back end ``convert``: one checkpoint format to another, or a finished model as others take it, on one process."""

from __future__ import annotations

from jobs.core.capabilities import Capabilities
from jobs.core.spec import StageSpec
from jobs.training import cpu, faults, startup
from jobs.training.interface import Result, WorkContext, versions

NAME = "convert"
CAPABILITIES = Capabilities(
    kinds=frozenset({"convert"}),
    formats_in=frozenset({"gguf"}),
    formats_out=frozenset({"hf"}),
    converts=frozenset({("gguf", "hf")}),
)

cpu.wait_passively()

PACKAGES = ("torch", "transformers", "tokenizers", "gguf", "safetensors")


def probe() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return versions(*PACKAGES)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """See ``jobs.training.gguf.run`` and ``jobs.training.export.run``."""
    startup.leave_out_sklearn()
    from jobs.training import gguf
    from jobs.training.export import run as export

    with faults.named():
        return export.run(spec, ctx) if "export" in spec.settings else gguf.run(spec, ctx)
