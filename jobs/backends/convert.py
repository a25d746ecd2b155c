"""Back end ``convert``: one checkpoint format to another, on one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.core.capabilities import Capabilities
from jobs.core.spec import StageSpec
from jobs.training import checkpoints, cpu, faults, tokenizers
from jobs.training.checkpoints import Completeness
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


def behaviour(checkpoint: Path) -> dict[str, Any] | None:
    """Ids of the probe texts; None for a directory without a tokenizer of its own (a GGUF file)."""
    if not (checkpoint / "tokenizer_config.json").is_file():
        return None
    return tokenizers.behaviour(checkpoint)


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` is a whole Hugging Face checkpoint."""
    return checkpoints.hugging_face(directory)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """See ``jobs.training.gguf.run``."""
    from jobs.training import gguf

    with faults.named():
        return gguf.run(spec, ctx)
