"""What every back end answers, with what holds where one does not say it itself.

A module of ``jobs.backends`` (or of the user's code) has ``NAME``, ``CAPABILITIES``, ``probe`` and ``run``. It may have
``rendered``, ``behaviour``, ``check_fetched`` and ``completeness``; the functions here are how the rest of the code
asks.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.core.capabilities import Capabilities
from jobs.core.files import json_text
from jobs.core.progress import ProgressWriter
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.training import checkpoints, tokenizers
from jobs.training.checkpoints import Completeness
from jobs.training.deadline import StopRequest

if TYPE_CHECKING:
    from jobs.training.saves import Saves


@dataclass(frozen=True)
class ProcessShape:
    """Where a stage is to run: nodes, and processes (GPUs, where there are any) on each."""

    nodes: int = 1
    processes: int = 1
    gpus: bool = False

    @property
    def world(self) -> int:
        """Processes of the stage."""
        return self.nodes * self.processes


@dataclass(frozen=True)
class Rendered:
    """What one start of a stage runs on each node, and the files that it reads: name -> content.

    ``notes``: what could not be checked here, for the one who submits.
    """

    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def rendered(backend: BackEnd, spec: StageSpec, shape: ProcessShape) -> Rendered:
    """The command and the files of a stage, without starting or importing anything heavy.

    Raises:
        BadSettings: what the stage was told does not fit.
        ImportError: the program whose version decides is not installed here, or its torch knows no GPUs.
    """
    own: Callable[[StageSpec, ProcessShape], Rendered] | None = getattr(backend, "rendered", None)
    found = in_process(spec, shape, backend.CAPABILITIES.launcher) if own is None else own(spec, shape)
    if shape.gpus and "torch" in getattr(backend, "PACKAGES", ()):
        needs_gpu_build()
    return found


def in_process(spec: StageSpec, shape: ProcessShape, launcher: str, files: Mapping[str, str] | None = None) -> Rendered:
    """How a back end is started that trains in our own processes; its settings are in the spec."""
    python, boot = spec.stage_python or "python3", "overnight_job.py"
    work = (boot, "work", "spec.json")
    given = {"settings.json": json_text(spec.settings), **(files or {})}
    if launcher == "torchrun" and shape.world > 1:
        sizes = (f"--nnodes={shape.nodes}", f"--nproc-per-node={shape.processes}")
        return Rendered((python, "-m", "torch.distributed.run", *sizes, *work), given)
    return Rendered((python, *work), given)


def behaviour(backend: BackEnd, checkpoint: Path) -> dict[str, Any] | None:
    """What the loader of training makes of ``PROBE_TEXTS``; None for a checkpoint without a tokenizer.

    Where the back end does not say it: of a Hugging Face directory, which also lies as ``hf`` in other formats.
    """
    own: Callable[[Path], dict[str, Any] | None] | None = getattr(backend, "behaviour", None)
    if own is not None:
        return own(checkpoint)
    place = checkpoint / "hf" if (checkpoint / "hf").is_dir() else checkpoint
    if not any((place / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    return tokenizers.behaviour(place)


def check_fetched(backend: BackEnd, checkpoint: Path) -> None:
    """Hold the loader of training against the files of a checkpoint that no stage has sealed a behaviour of.

    Raises:
        LoaderDisagrees: they give other ids.
    """
    own: Callable[[Path], None] | None = getattr(backend, "check_fetched", None)
    if own is not None:
        own(checkpoint)
    elif not hasattr(backend, "behaviour"):
        tokenizers.check_fetched(checkpoint)


def completeness(backend: BackEnd, directory: Path) -> Completeness:
    """Whether ``directory`` is whole by the rules of the back end that wrote it, else by those of Hugging Face where it
    writes that format, else: there is something in it."""
    own: Callable[[Path], Completeness] | None = getattr(backend, "completeness", None)
    if own is not None:
        return own(directory)
    if "hf" in backend.CAPABILITIES.formats_out:
        return checkpoints.hugging_face(directory)
    if not directory.is_dir() or not any(directory.iterdir()):
        return Completeness(problem=f"{directory} is missing or empty")
    return Completeness()


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
    collective_seconds: float = 7200.0
    """How long a process may wait for the others, one of which may do work of the size of a save by itself."""


def of_save(backend: BackEnd, save: Path, source: Path, target: Path) -> None:
    """Make ``target`` a finished model of a save of a training that began with ``source``."""
    own: Callable[[Path, Path, Path], None] = getattr(backend, "of_save")  # noqa: B009 - what CAPABILITIES.saves promises
    own(save, source, target)


class BackEnd(Protocol):
    """The interface of a back-end module."""

    NAME: str
    CAPABILITIES: Capabilities

    def probe(self) -> dict[str, str]:
        """Versions of the packages that decide results, without importing them."""
        ...

    def run(self, spec: StageSpec, ctx: WorkContext) -> Result:
        """How the stage's work ended; called on every rank."""
        ...


class Missing(ImportError):
    """What a stage was told needs a package, or a build of one, that is not in this environment."""

    failure = FailureClass.VERSIONS


def needs(package: str, what: str, name: str = "") -> None:
    """Refuse a setting whose package is not in this environment.

    Raises:
        Missing: with the line that installs it.
    """
    if package not in versions(package):
        raise Missing(f"{what} needs {package}, which is not in this environment: pip install {name or package}")


def needs_release(package: str, least: tuple[int, int], what: str) -> None:
    """Refuse a setting for which the package here is too old.

    Raises:
        Missing: with the line that installs a newer one.
    """
    found = re.match(r"(\d+)\.(\d+)", versions(package).get(package, ""))
    if found is not None and (int(found[1]), int(found[2])) < least:
        wanted = ".".join(map(str, least))
        raise Missing(f"{what} needs {package} {wanted}, here is {found.string}: pip install '{package}>={wanted}'")


def meet_gpus(backend: BackEnd, wanted: bool) -> None:
    """Refuse to compute on the CPU where a stage has asked for GPUs.

    Raises:
        Exception: torch's own reason, such as a driver that is too old.
    """
    if not wanted or "torch" not in getattr(backend, "PACKAGES", ()):
        return
    import torch

    if not torch.cuda.is_available():  # libraries then take the CPU without a word
        torch.cuda.current_device()  # says why
        raise RuntimeError("No CUDA GPUs are available")


def needs_gpu_build() -> None:
    """Refuse a torch that was built without GPUs; it is read, not imported.

    Raises:
        Missing: with the line that installs another.
    """
    place = importlib.util.find_spec("torch")
    if place is None or place.origin is None:
        raise Missing("torch is not installed in this environment: pip install torch")
    text = Path(place.origin).with_name("version.py").read_text(encoding="utf-8")
    if not re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", text, re.M):
        version = versions("torch").get("torch", "")
        raise Missing(
            f"torch {version} computes on the CPU alone, and the stage asks for GPUs: pip install --force-reinstall "
            f"torch=={version.partition('+')[0]} from an index with a build for them, or leave gpus_per_node out"
        )


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages in this interpreter, without importing them; those not installed are left out."""
    from importlib import metadata  # not for those that ask for no version: it takes as long as all else here

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
