"""What every back end answers, with what holds where one does not say it itself.

A module of ``jobs.backends`` (or of the user's code) has ``NAME``, ``CAPABILITIES``, ``probe``, ``behaviour`` and
``run``. It may have ``rendered``, ``reader`` and ``completeness``; the functions here are how the rest of the code
asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.backends import BackEnd
from jobs.core.progress import Report
from jobs.core.spec import StageSpec

METRICS = frozenset({"loss", "tokens_per_second"})
"""Names under which every reader reports what it finds of these."""

Reader = Callable[[str], Report | None]
"""Takes one line of what a program writes; a report when the line ends a step."""


@dataclass(frozen=True)
class Shape:
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


@dataclass(frozen=True)
class Completeness:
    """Whether a directory is a whole checkpoint. ``step`` where the format keeps it; ``problem`` None: it is whole."""

    step: int | None = None
    problem: str | None = None


def rendered(backend: BackEnd, spec: StageSpec, shape: Shape) -> Rendered:
    """The command and the files of a stage, without starting or importing anything heavy.

    Raises:
        BadSettings: what the stage was told does not fit.
        ImportError: the program whose version decides is not installed here.
    """
    own = getattr(backend, "rendered", None)
    if own is not None:
        return own(spec, shape)  # type: ignore[no-any-return]
    return in_process(spec, shape, backend.CAPABILITIES.launcher)


def in_process(spec: StageSpec, shape: Shape, launcher: str, files: Mapping[str, str] | None = None) -> Rendered:
    """How a back end is started that trains in our own processes; its settings are in the spec."""
    python, boot = spec.stage_python or "python3", "overnight_job.py"
    work = (boot, "work", "spec.json")
    given = {"settings.json": json.dumps(spec.settings, indent=2, sort_keys=True) + "\n", **(files or {})}
    if launcher == "torchrun" and shape.world > 1:
        sizes = (f"--nnodes={shape.nodes}", f"--nproc-per-node={shape.processes}")
        return Rendered((python, "-m", "torch.distributed.run", *sizes, *work), given)
    return Rendered((python, *work), given)


def reader(backend: BackEnd, spec: StageSpec | None = None) -> Reader:
    """Reads the lines that the back end's program writes; ours writes ``progress.jsonl``.

    ``spec``: of the stage, where the reader has to count from its newest save.
    """
    own = getattr(backend, "reader", None)
    return own(spec) if own is not None else read_report  # type: ignore[no-any-return]


def read_report(line: str) -> Report | None:
    """A line of ``progress.jsonl``; None for one that is none."""
    try:
        value: dict[str, Any] = json.loads(line)
        return Report(
            float(value["time"]), int(value["step"]), value.get("total"), value.get("phase", ""),
            value.get("metrics", {}), int(value.get("restart", 0)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def completeness(backend: BackEnd, directory: Path) -> Completeness:
    """Whether ``directory`` is whole by the rules of the back end that wrote it; else: there is something in it."""
    own = getattr(backend, "completeness", None)
    if own is not None:
        return own(directory)  # type: ignore[no-any-return]
    if not directory.is_dir() or not any(directory.iterdir()):
        return Completeness(problem=f"{directory} is missing or empty")
    return Completeness()


def hugging_face(directory: Path) -> Completeness:
    """Whether a Hugging Face directory is whole: its configuration, and every file of weights that the index names.

    A file of safetensors says its own length in its header (https://github.com/huggingface/safetensors, "Format"), so
    one that was cut off is found without reading it.
    """
    if not (directory / "config.json").is_file():
        return Completeness(problem=f"{directory / 'config.json'} is missing")
    index = directory / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Completeness(problem=f"{index}: not an index of weights: {error}")
    for name in names:
        problem = _cut_off(directory / name)
        if problem is not None:
            return Completeness(problem=problem)
    return Completeness()


def _cut_off(path: Path) -> str | None:
    try:
        with open(path, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size < 1 << 30 else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted, found = 8 + size + max(ends, default=0), path.stat().st_size
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return f"{path} has no header of safetensors"
    return None if found == wanted and ends else f"{path} has {found} bytes, its header speaks of {wanted}"
