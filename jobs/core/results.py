"""What an evaluation measured, as it lies in its output: ``evaluation.json``.

``{"schema": 1, "tasks": {task: {"metrics": {metric: numbers}, ...}}}``; the numbers of a metric are those of
``jobs.evaluate.compare``. A curve has ``curve`` beside it: ``{"points": [{"step", "tasks"}, ...], ...}``; its ``tasks``
are those of the last point. Evaluations before schema 1 left ``metrics.json``: task -> metric -> numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core import files, strict

FILE = "evaluation.json"
OLD_FILE = "metrics.json"
SCHEMA = 1


def write(output: Path, tasks: Mapping[str, Any], **more: Any) -> Path:
    """The file, written, with ``more`` beside the tasks."""
    path = output / FILE
    files.write_json(path, {"schema": SCHEMA, "tasks": dict(tasks), **more})
    return path


def find(output: Path) -> Path | None:
    """The file of an evaluation that measured something; None: it has none."""
    return next((path for name in (FILE, OLD_FILE) if (path := output / name).is_file()), None)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Task -> what is known of it, ``metrics`` among that.

    Raises:
        OSError, ValueError: it cannot be read, or is of a schema that is not known here.
    """
    found = files.read_json(path)
    try:
        if path.name == OLD_FILE:
            return {
                task: {"metrics": {name: _of_old(entry) for name, entry in own.items()}} for task, own in found.items()
            }
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        tasks = strict.convert(dict[str, dict[str, Any]], found["tasks"], "tasks")
        return {name: {**task, "metrics": _metrics(task)} for name, task in tasks.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not the results of an evaluation: {error}") from error


def _metrics(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = strict.convert(dict[str, dict[str, Any]], task["metrics"], "metrics")
    return found


def read_points(path: Path) -> dict[int, dict[str, Any]]:
    """Step -> tasks as ``read`` gives them, of the points of a curve; empty where it is none.

    Raises:
        OSError, ValueError: as ``read``.
    """
    if path.name == OLD_FILE or "curve" not in (found := files.read_json(path)):
        return {}
    return {int(point["step"]): point["tasks"] for point in found["curve"]["points"]}


def _of_old(entry: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in entry.items() if key not in ("difference", "gate")}
    if "difference" in entry:
        made["change"] = entry["difference"]
    if gate := entry.get("gate"):
        verdict = "passed" if gate["passed"] else "missed"
        made["gate"] = {"rule": f"must {gate['must']}", "tier": "critical", "verdict": verdict}
    return made
