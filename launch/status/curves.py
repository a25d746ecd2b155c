"""What the training stages of a run reported, joined over all starts: for TensorBoard and for trackers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.core import attempts, progress
from jobs.core.paths import StagePaths
from jobs.core.progress import Report
from jobs.core.validation import LOSS
from launch.base.errors import InputError
from launch.plan.model import Plan
from launch.runs.rundir import Run


def of_run(run: Run, plan: Plan) -> dict[str, list[Path]]:
    """Training stage -> its progress files, oldest first; also those of other runs that have done a part of its work.

    Raises:
        InputError: no stage has reported a step.
    """
    found = {}
    for stage in plan.stages:
        if not stage.trains:
            continue
        made = [StagePaths(Path(one.stage_dir)).progress for one in attempts.all_of(stage.store(run.workspace))]
        paths = [path for path in dict.fromkeys([*made, run.paths.stage(stage.name).progress]) if path.is_file()]
        if any(True for path in paths for _ in steps(path)):
            found[stage.name] = paths
    if not found:
        raise InputError(f"no training stage of run {run.id} has reported a step", hint=f"overnight status {run.id}")
    return found


def steps(path: Path) -> Iterator[Report]:
    """The reports of steps in a progress file; those of other phases (tokenising, a long validation) left out."""
    return (report for report in progress.read(path) if not report.phase)


class Growing:
    """A progress file that is written to."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def steps(self) -> list[Report]:
        """The reports of steps that were added since the last call."""
        with open(self._path, "rb") as stream:
            stream.seek(self._read)
            lines = stream.read().rpartition(b"\n")[0]
        self._read += len(lines)
        found = map(Report.parse, lines.decode(errors="replace").splitlines())
        return [report for report in found if report is not None and not report.phase]


def joined(reports: Iterable[Report]) -> list[Report]:
    """One report a step, rising: what a start reported beyond the save that the next one went on from is left out."""
    found: list[Report] = []
    for report in reports:
        while found and found[-1].step >= report.step:
            found.pop()
        found.append(report)
    return found


def tags(report: Report) -> dict[str, float]:
    """The metrics of a report by the names that they have on a board."""
    return {"validation/loss" if name == LOSS else f"train/{name}": value for name, value in report.metrics.items()}
