"""Tells Weights & Biases or MLflow what the training stages of a run reported, by replaying their progress.

No stage knows of it, so a tracker that does not work fails none. A stage has one id there over all of its starts and
over all calls; what a tracker was told is kept with the run, and what it cannot be told twice is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from jobs.core import files, strict
from jobs.core.progress import Report
from launch.base.errors import InputError
from launch.plan.model import Plan
from launch.runs.rundir import Run
from launch.status import curves

ToldSteps = dict[str, Any]
"""Of a stage: ``id`` there, and ``step`` up to which it was told. A tracker writes into it as it goes: what it has been
told before it fails is neither made nor told a second time."""


def to_wandb(run: Run, name: str, project: str, reports: list[Report], told: ToldSteps) -> str:
    """Its own id is ours. Without network: ``WANDB_MODE=offline``, and ``wandb sync`` where there is one."""
    import wandb

    found = f"{run.id}-{name}"
    made = wandb.init(project=project, id=found, name=found, resume="allow", dir=str(run.paths.tracked))
    for report in reports:
        made.log(curves.tags(report), step=report.step)
    made.finish()
    return found


def to_mlflow(run: Run, name: str, project: str, reports: list[Report], told: ToldSteps) -> str:
    """Without ``MLFLOW_TRACKING_URI`` into files below the run."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it asks for a database
        address = (run.paths.tracked / "mlflow").as_uri()
    client = MlflowClient(address)
    known = client.get_experiment_by_name(project)
    experiment = client.create_experiment(project) if known is None else known.experiment_id
    found = str(told.get("id") or client.create_run(experiment, run_name=f"{run.id}-{name}").info.run_id)
    told["id"] = found
    for report in reports:
        when = int(report.time * 1000)
        client.log_batch(found, [Metric(tag, value, when, report.step) for tag, value in curves.tags(report).items()])
        told["step"] = report.step
    client.set_terminated(found)
    return found


TRACKERS: dict[str, Callable[[Run, str, str, list[Report], ToldSteps], str]] = {"wandb": to_wandb, "mlflow": to_mlflow}


def tell(run: Run, plan: Plan, tracker: str, project: str) -> dict[str, ToldSteps]:
    """What the tracker now knows of each training stage.

    Raises:
        InputError: it is not installed, or cannot be told; with its words.
    """
    path = run.paths.tracked / f"{tracker}.json"
    known = _known(path)
    for name, paths in curves.of_run(run, plan).items():
        told = {"step": 0, **known.get(name, {})}
        reports = curves.joined(chain.from_iterable(map(curves.steps, paths)))
        new = [report for report in reports if report.step > told["step"]]
        if not new:
            continue
        files.make_directory(run.paths.tracked)
        try:
            told |= {"id": _told(tracker, run, name, project, new, told), "step": new[-1].step}
        finally:
            if "id" in told:
                known[name] = told
                files.write_json(path, known)
    return known


@dataclass(frozen=True)
class _Stage:
    id: str
    step: int


def _known(path: Path) -> dict[str, ToldSteps]:
    try:
        found = strict.convert(dict[str, _Stage], files.read_json_or_none(path) or {}, "stages")
    except ValueError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{where}{error}", hint="remove the file: everything is sent again") from error
    return {name: asdict(one) for name, one in found.items()}


def _told(tracker: str, run: Run, name: str, project: str, new: list[Report], told: ToldSteps) -> str:
    try:
        return TRACKERS[tracker](run, name, project, new, told)
    except ImportError as error:
        raise InputError(
            f"{tracker} is not installed here ({error})", hint=f"pip install 'overnight[{tracker}]'"
        ) from error
    except Exception as error:
        raise InputError(
            f"{tracker} did not accept the values of stage {name}: {error}",
            hint="the same command again; without network: WANDB_MODE=offline, or no MLFLOW_TRACKING_URI",
        ) from error
