"""Back end ``nemo_rl``: DPO by NeMo-RL, as an external program in a checkout or container, on a Ray cluster.

NeMo-RL is not on PyPI (0.0.0 there is an empty placeholder): ``nemo_rl`` must be importable in the stage's environment,
NeMo-RL is not on PyPI (0.0.0 there is an empty placeholder): ``nemo_rl`` must be importable in the environment,
and its version, ``schemas`` says how that version wants to be told things, ``render`` writes its configuration,
``supervise`` runs it and seals its saves, ``convert`` turns its checkpoint into a Hugging Face directory.
Format ``dcp``: ``policy/weights`` (PyTorch distributed checkpoint), ``config.yaml`` and ``training_info.json`` as
NeMo-RL writes them, and ``hf/``: configuration and tokenizer files of the model that it started from.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from jobs import tokenizers
from jobs.backends import Capabilities, Result, WorkContext
from jobs.core.spec import StageSpec

NAME = "nemo_rl"
CAPABILITIES = Capabilities(
    kinds=frozenset({"dpo", "convert"}),
    formats_in=frozenset({"hf"}),
    formats_out=frozenset({"dcp"}),
    launcher="ray",
    distributed=True,
    converts=frozenset({("dcp", "hf")}),
)

PACKAGES = ("torch", "transformers", "ray", "omegaconf", "hydra-core")


def probe() -> dict[str, str]:
    """Versions of NeMo-RL and of the packages that decide results.

    Raises:
        ImportError: no NeMo-RL here, one of a version that is not known, or a package missing.
    """
    from jobs.backends.nemo_rl import checkout

    found = {"nemo_rl": checkout.find().version}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ImportError(f"{name} is not installed in this environment") from None
    return found


def behaviour(checkpoint: Path) -> dict[str, Any]:
    """Ids of the probe texts; reads Hugging Face directories and our ``dcp`` checkpoints."""
    inner = checkpoint / "hf"
    return tokenizers.behaviour(inner if inner.is_dir() else checkpoint)


def completeness(directory: Path) -> str | None:
    """Why ``directory`` is no complete checkpoint of this format, or None."""
    from jobs.backends.nemo_rl import steps

    return steps.problem(directory)


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or convert; called once, beside the head of the Ray cluster."""
    if spec.kind == "convert":
        from jobs.backends.nemo_rl import convert

        return convert.run(spec, ctx)
    from jobs.backends.nemo_rl import supervise

    return supervise.run(spec, ctx)
