"""Event files for TensorBoard, written from the progress of the stages by TensorBoard's own library."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core.progress import Report
from launch.base.errors import InputError
from launch.plan.model import Plan
from launch.runs.rundir import Run
from launch.status import curves

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Board:
    """The event file of one stage. Made again by each command: progress files are the record."""

    def __init__(self, directory: Path, paths: list[Path]) -> None:
        writer = _writer()
        shutil.rmtree(directory, ignore_errors=True)
        self._writer: EventFileWriter = writer(str(directory))
        self._last, self._growing = 0, curves.Growing(paths[-1])
        earlier = chain.from_iterable(map(curves.steps, paths[:-1]))
        self._add(curves.joined(chain(earlier, self._growing.steps())))

    def follow(self) -> None:
        """Add what was reported since."""
        self._add(self._growing.steps())

    def _add(self, reports: Iterable[Report]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        for report in reports:
            if report.step <= self._last:  # a start that went on from a save: TensorBoard drops what it had from there
                start = SessionLog(status=SessionLog.START)
                self._writer.add_event(Event(wall_time=report.time, step=report.step, session_log=start))
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves.tags(report).items()]
            self._writer.add_event(Event(wall_time=report.time, step=report.step, summary=Summary(value=values)))
            self._last = report.step
        self._writer.flush()


def write(run: Run, plan: Plan) -> list[Board]:
    """The event files of a run as they were written, one directory a training stage.

    Raises:
        InputError: TensorBoard is not installed, or no stage has reported a step.
    """
    return [Board(run.paths.boards / name, paths) for name, paths in curves.of_run(run, plan).items()]


def _writer() -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise InputError(
            f"TensorBoard is not installed here ({error})", hint="pip install 'overnight[tensorboard]'"
        ) from error
    return EventFileWriter
