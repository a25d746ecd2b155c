"""Progress on stderr while a command works: a bar on a terminal, lines in a log, nothing for ``--json``.

rich draws the bar. It is imported when a bar is drawn and not before: no other command pays for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.progress import Report
from jobs.core.validation import LOSS
from launch.base.text import duration
from launch.status import progress

if TYPE_CHECKING:
    from launch.inputs.fetch import FetchItem, FetchProgress
    from launch.plan.model import Plan, PlannedStage

LINE_SECONDS = 10.0
"""In a log: at most one line of progress in this time."""

KEPT_REPORTS = 200


class Output:
    """Where progress goes; this one drops it, for ``--json``."""

    def update(self, title: str, done: int, total: int | None, text: str = "") -> None:
        """Show how far the activity ``title`` is; ``text`` says it with its unit. One activity at a time."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Remove what does not stay."""


class _Lines(Output):
    """For a log: one line when an activity begins, then one every ten seconds."""

    def __init__(self) -> None:
        self._title = ""
        self._printed_at = 0.0

    def update(self, title: str, done: int, total: int | None, text: str = "") -> None:
        if title == self._title and time.monotonic() - self._printed_at < LINE_SECONDS:
            return
        self._title, self._printed_at = title, time.monotonic()
        self.say(f"{title}: {text}" if text else title)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Bar(Output):
    """For a terminal: the bar of the current activity, with lines that stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        texts = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[text]")]
        columns = (texts[0], BarColumn(24), texts[1], TimeElapsedColumn())
        # Standard output may be a file: it is left alone.
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._bar.start()

    def update(self, title: str, done: int, total: int | None, text: str = "") -> None:
        task = next(iter(self._bar.tasks), None)
        if task is not None and task.description != title:
            self._bar.remove_task(task.id)
            task = None
        number = self._bar.add_task(title, total=None, text="") if task is None else task.id
        self._bar.update(number, completed=done, total=total, text=text)

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def shown(quiet: bool) -> Iterator[Output]:
    """Yield the output that fits: a bar, lines, or nothing."""
    if quiet:
        output = Output()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        output = _Bar()
    else:
        output = _Lines()
    try:
        yield output
    finally:
        output.close()


def fetching(output: Output) -> FetchProgress:
    """What ``fetch`` reports downloads and verifications to."""

    def update(item: FetchItem, done: int, total: int | None, what: str) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        output.update(f"{item.name}: {what}", done, total, f"{done / 1e6:.1f}{of} MB" if done else "")

    return update


def phases(output: Output) -> Callable[[str], Callable[[int, int], None]]:
    """What ``data_prep`` reports to: called with the name of each phase, it returns the callable for its steps."""

    def begin(phase: str) -> Callable[[int, int], None]:
        output.update(phase, 0, None)
        return lambda step, total: output.update(phase, step, total, f"{step:,} of {total:,}")

    return begin


class LocalDisplay:
    """Shows the stages of a run on this machine, see ``launch.submit.local.Display``."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self._total = len(plan.stages)
        self._output = output
        self._number = 0
        self._title = ""
        self._reports: list[Report] = []

    def begin(self, stage: PlannedStage, reused: bool) -> None:
        self._number += 1
        self._title = f"stage {self._number} of {self._total}: {stage.name}"
        self._reports = []
        if reused:
            self._output.say(f"{self._title}: sealed already, reused")
        else:
            self._output.update(self._title, 0, None, "starting")

    def update(self, report: Report) -> None:
        if self._reports and report.time == self._reports[-1].time:
            return
        self._reports = [*self._reports[-KEPT_REPORTS:], report]
        left = progress.seconds_left(self._reports)
        text = progress_text(report) + ("" if left is None else f"  {duration(left)} left")
        self._output.update(self._title, report.step, report.total, text)

    def end(self, seconds: float) -> None:
        last = "".join(f", {progress_text(report)}" for report in self._reports[-1:])
        self._output.say(f"{self._title}: sealed after {duration(seconds)}{last}")

    def note(self, text: str) -> None:
        self._output.say(f"  {text}")


def progress_text(report: Report) -> str:
    """``training 12 of 60  loss 2.314``, with that of a validation; where there is no loss, the first metrics."""
    steps = f"{report.step}" if report.total is None else f"{report.step} of {report.total}"
    metrics = {name: report.metrics[name] for name in ("loss", LOSS) if name in report.metrics} or report.metrics
    measured = [f"{name} {value:.4g}" for name, value in list(metrics.items())[:3]]
    return "  ".join([f"{report.phase or 'step'} {steps}", *measured])
