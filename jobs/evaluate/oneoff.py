"""One evaluation outside of a pipeline, as ``overnight evaluate`` asks for it: on this machine, in a directory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core import files, results
from jobs.core.progress import ProgressWriter
from jobs.core.spec import Input, StageSpec
from jobs.core.verdict import FailureClass
from jobs.evaluate.judging.questions import PAIRWISE
from jobs.training.deadline import StopRequest
from jobs.training.interface import BackEnd, WorkContext
from jobs.training.saves import Saves

NOW, BEFORE = "now", "before"
_IN_PLACE = ("server", "model", "key", "answers")
"""Settings of what answers in place of a checkpoint: what it is held against is a checkpoint, and answers itself."""


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """``{"file", "tasks"}`` of the evaluation, with ``gates`` where one stops; or ``{"error"}``.

    ``asked``: ``output``, where it is written; ``checkpoint`` (None: a server, or stored answers), ``against``,
    ``settings``, ``judges``: name -> the model of one that is here, and ``data``: name of a task's data,
    or of the known pairs of a judge -> file of rows, or directory with a file a split.
    """
    output = Path(asked["output"])
    settings = dict(asked["settings"])
    inputs = {name: _data(output, name, Path(path)) for name, path in asked["data"].items()}
    try:
        for name, path in asked.get("judges", {}).items():
            inputs[f"judge:{name}"] = _entry(output, f"judge-{name}", Path(path))
        if asked.get("against"):
            own = {key: value for key, value in settings.items() if key not in _IN_PLACE}
            plain = {**own, "gate": {}, "tasks": _answered(settings["tasks"])}
            _run(output / BEFORE, plain, {**inputs, "checkpoint": _entry(output, BEFORE, Path(asked["against"]))})
            inputs["compare_to"] = Input(BEFORE, str(output / BEFORE), "evaluation", "metrics", "")
        if asked.get("checkpoint"):
            inputs["checkpoint"] = _entry(output, NOW, Path(asked["checkpoint"]))
        stopped = _run(output / NOW, settings, inputs)
    except Exception as error:
        if getattr(error, "failure", None) is None and not isinstance(error, OSError):
            raise
        return {"error": str(error)}
    file = output / NOW / "output" / results.FILE
    return {"file": str(file), "tasks": results.read(file), **({"gates": stopped} if stopped else {})}


def _answered(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The tasks of the model that another one is compared with: where a judge holds the answers of the two against each
    other its own are only made."""
    found: dict[str, Any] = {}
    for name, task in tasks.items():
        pairs = "judge" in task and task["judged_by"]["form"] == PAIRWISE and task.get("against") != "references"
        kept = {key: value for key, value in task.items() if key not in ("task", "judge", "judged_by", "against")}
        found[name] = {**kept, "task": "measure", "measure": {"length": {}}} if pairs else task
    return found


def _run(root: Path, settings: dict[str, Any], inputs: dict[str, Input]) -> str | None:
    """Evaluate below ``root``; what a gate says that stops it."""
    from jobs import evaluate

    fingerprint = _fingerprint(settings, inputs)
    stage = StageSpec(
        run="", pipeline="", stage=root.name, kind="evaluate", backend="", attempt="", fingerprint=fingerprint,
        stage_dir=str(root / "stage"), store_dir=str(root / f"work-{fingerprint[:16]}"),
        produces={"kind": "evaluation", "format": "metrics"}, settings=settings, inputs=inputs,
    )  # fmt: skip
    for directory in (root / "output", stage.stage_paths.root, stage.store_paths.root):
        directory.mkdir(parents=True, exist_ok=True)
    context = WorkContext(
        output=root / "output",
        progress=_Shown(stage.stage_paths.progress),
        stop=StopRequest(stage.stage_paths, root / "no-deadline", 0.0),
        saves=Saves(stage.store_paths, fingerprint, None, lambda name, **facts: None),
        event=lambda name, **facts: None,
    )
    try:
        evaluate.run(stage, context, _no_back_end)
    except (evaluate.GateFailed, evaluate.GateUndecided) as error:
        return str(error)
    finally:
        print(file=sys.stderr)
    files.take_away(stage.store_paths.root)
    return None


def _no_back_end(name: str) -> BackEnd:
    raise LookupError(name)


class _Shown(ProgressWriter):
    """Progress on stderr, on one line."""

    def report(self, step: int, total: int | None, phase: str = "", **metrics: float) -> None:
        print(f"\r{phase}: {step} of {total} rows", end="", file=sys.stderr, flush=True)


def _entry(output: Path, name: str, checkpoint: Path) -> Input:
    """A directory as an input: what a stage reads lies in ``output`` of an entry."""
    if not (checkpoint / "config.json").is_file():
        raise NoModel(f"{checkpoint} is not a Hugging Face directory: it has no config.json")
    root = _linked(output, f"model-{name}", checkpoint)
    return Input(name, str(root), "checkpoint", "hf", _digest(_states(root / "output")))


class NoModel(ValueError):
    """What is to be measured is no model, or what it is measured on are no rows."""

    failure = FailureClass.BAD_CONFIGURATION


def _data(output: Path, name: str, path: Path) -> Input:
    if path.is_dir():
        return Input(name, str(_linked(output, f"data-{name}", path)), "dataset", "", "")
    root = output / ".inputs" / f"data-{name}"
    (root / "output").mkdir(parents=True, exist_ok=True)
    for split in ("test", "validation"):
        _link(root / "output" / f"{split}.jsonl", path)
    return Input(name, str(root), "dataset", "", "")


def _linked(output: Path, name: str, target: Path) -> Path:
    root = output / ".inputs" / name
    root.mkdir(parents=True, exist_ok=True)
    _link(root / "output", target)
    return root


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target.resolve())


def _fingerprint(settings: Mapping[str, Any], inputs: Mapping[str, Input]) -> str:
    """Of what is measured: rows that are kept of another model, or of other settings, are none of this one's."""
    states = {role: _states(given.output) for role, given in inputs.items()}
    return _digest([settings, states, os.environ.get("CUDA_VISIBLE_DEVICES")])


def _states(output: Path) -> list[Any]:
    """Names, sizes and times of the files of an input."""
    paths = sorted(output.iterdir()) if output.is_dir() else [output]
    return [[path.name, files.state(path)] for path in paths if path.is_file()]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
