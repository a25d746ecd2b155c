"""Back ends: one module each. ``load(name)`` imports the one that a stage names; nothing else knows them by name.

One that is not here may be a module of the user's own code (``code:`` of the pipeline).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from jobs.core.deadline import StopRequest
from jobs.core.progress import ProgressWriter
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.saves import Saves

PROBE_TEXTS = (
    "The capital of France is Paris",
    "def main():\n    return 12345",
    "Não há atualizações disponíveis — ação concluída.",
    "  leading and   inner spaces\t tab",
    "日本語と한국어 emoji 🌙",
)
"""Fixed texts whose ids make up the behaviour of a tokenizer: words, digits, accents, white space, other scripts."""


class Diverged(ArithmeticError):
    """The loss is not a number any more; going on would only overwrite good saves with bad ones."""

    failure = FailureClass.DATA_ERROR


class Unfinished(RuntimeError):
    """A program ended without an error and left no whole checkpoint."""

    failure = FailureClass.INCOMPLETE_CHECKPOINT


class BrokenCheckpoint(RuntimeError):
    """What a stage is given is no whole checkpoint of its format."""

    failure = FailureClass.BROKEN_INPUT


@dataclass(frozen=True)
class Memory:
    """What training keeps, for the estimates of the plan: bytes a parameter by precision, as (weights, gradients,
    optimizer with its fp32 weights).

    ``sharded``: what is spread over the replicas: ``none``, ``optimizer`` or ``all``; ``sharded_by``: the option (true
    or false) that says whether the optimizer is. ``fused``: kernels that keep one copy where eager code keeps several.
    ``local``: Megatron's layers without transformer_engine. ``scores``: attention keeps its scores. ``logits``: bytes a
    logit. ``reference``: bytes a parameter of the frozen model of DPO. ``buckets``: bytes a parameter that summing
    gradients over replicas takes beside them. ``finished``: bytes of a weight in a finished checkpoint, by precision.

    What the plan may propose where a model does not fit: ``recompute``, the values of the option of that name that keep
    less, the cheapest first; ``splits``, the options that split a model over GPUs (``tensor_parallel``,
    ``pipeline_parallel``); ``adapters``, whether it has the option ``lora_rank``.

    ``without``: what holds instead where that package is not in the environment.
    """

    states: dict[str, tuple[float, float, float]]
    sharded: str = "none"
    sharded_by: str = ""
    fused: bool = False
    local: bool = False
    scores: bool = False
    logits: float = 8.0
    reference: float = 0.0
    buckets: float = 0.0
    finished: dict[str, int] = field(default_factory=lambda: {"fp32": 4, "bf16": 4})
    recompute: tuple[str | bool, ...] = ()
    splits: tuple[str, ...] = ()
    adapters: bool = False
    without: dict[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do.

    ``launcher``: how its processes start (``python``, ``torchrun``, or ``ray``: one driver beside a Ray cluster over
    all nodes). ``converts``: pairs (from, to) of checkpoint formats, for the kind ``convert``. ``memory``: None where
    plain Adam over whole replicas is a fair guess. ``experimental``: what has not been tried, shown by the plan.
    ``revision``: raised when a change of the module makes results of before invalid; they are made again.
    """

    kinds: frozenset[str]
    formats_in: frozenset[str]
    formats_out: frozenset[str]
    stop: str = "file"
    launcher: str = "python"
    distributed: bool = False
    converts: frozenset[tuple[str, str]] = frozenset()
    memory: Memory | None = None
    experimental: str = ""
    revision: int = 1


@dataclass(frozen=True)
class Result:
    """How the work ended. ``stopped``: saved and left before the target, on request."""

    outcome: str
    step: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class WorkContext:
    """What the lifecycle gives to a back end. ``output`` is the directory to fill (empty at start)."""

    output: Path
    progress: ProgressWriter
    stop: StopRequest
    saves: Saves
    event: Callable[..., None]
    restart: int = 0
    rank: int = 0
    world: int = 1


class BackEnd(Protocol):
    """The interface of a back-end module."""

    NAME: str
    CAPABILITIES: Capabilities

    def probe(self) -> dict[str, str]:
        """Versions of the packages that decide results, without importing them."""
        ...

    def behaviour(self, checkpoint: Path) -> dict[str, Any] | None:
        """Ids of ``PROBE_TEXTS`` by the very loader call that training uses; None if the format has no tokenizer."""
        ...

    def run(self, spec: StageSpec, ctx: WorkContext) -> Result:
        """Do the stage's work; called on every rank."""
        ...


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages in this interpreter, without importing them; those not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def needed(*packages: str, hint: str = "") -> dict[str, str]:
    """As ``versions``, of packages that all have to be there.

    Raises:
        ImportError: the first that is missing, with ``hint`` behind it.
    """
    found = versions(*packages)
    for name in packages:
        if name not in found:
            raise ImportError(f"{name} is not installed in this environment{hint}")
    return found


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
        raise LookupError(f"{found.origin} is no back end: it has no CAPABILITIES, or its NAME is not {name!r}")
    return cast(BackEnd, module)
