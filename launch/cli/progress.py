"""Progress on the terminal while ``fetch`` and ``run`` are at work: bars where somebody looks, lines where a log reads.

tqdm draws the bars: a twentieth of the size of richer libraries, on a login node where the installation is to be
small. It is imported when a bar is drawn and not before: no other command pays for it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobs.core.progress import Report
from launch.base.text import duration
from launch.inputs.fetch import FetchItem, Progress
from launch.plan.model import Plan, PlannedStage
from launch.status import progress
from launch.submit.local import Display

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 10.0
"""In a log: at most one line of progress in this time."""

KEPT_REPORTS = 200


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _bar(total: int | None, position: int | None = None, *, leave: bool = True, form: str | None = None) -> tqdm[Any]:
    """A bar on stderr. The size is asked for here: a pseudo-terminal may say 0 x 0, by which tqdm shows nothing."""
    from tqdm import tqdm

    size = shutil.get_terminal_size((120, 24))
    return tqdm(
        total=total,
        position=position,
        leave=leave,
        bar_format=form,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        ncols=size.columns,
        nrows=size.lines,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def fetching(quiet: bool) -> Iterator[Progress]:
    """Show downloads and verifications on stderr; yields the callable that ``fetch`` reports to."""
    if quiet:
        yield lambda item, done, total, what: None
    elif _is_terminal():
        bars = _FetchBars()
        try:
            yield bars.update
        finally:
            bars.close()
    else:
        yield _FetchLines().update


class _FetchLines:
    """One line when something new begins, then one every ten seconds."""

    def __init__(self) -> None:
        self._now: tuple[str, str] | None = None
        self._said = 0.0

    def update(self, item: FetchItem, done: int, total: int | None, what: str) -> None:
        new = (item.name, what) != self._now
        if not new and time.monotonic() - self._said < LINE_SECONDS:
            return
        self._now, self._said = (item.name, what), time.monotonic()
        of = f" of {total / 1e6:.1f}" if total else ""
        _say(f"{item.name}: {what}" + (f": {done / 1e6:.1f}{of} MB" if done else ""))


class _FetchBars:
    """A bar per item; a new activity of the item (downloading, then verifying) starts the bar again."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}
        self._what: dict[str, str] = {}

    def update(self, item: FetchItem, done: int, total: int | None, what: str) -> None:
        name = item.name
        if name not in self._bars:
            self._bars[name] = _bar(total)
        bar = self._bars[name]
        if self._what.get(name) != what:
            self._what[name] = what
            bar.reset(total)
            bar.set_description(f"{name}: {what}", refresh=False)
        bar.total = total
        bar.update(done - bar.n)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


@contextmanager
def local_display(plan: Plan, quiet: bool) -> Iterator[Display]:
    """Show the stages of a run on this machine, on stderr."""
    if quiet:
        yield _Silent()
    elif _is_terminal():
        bars = _StageBars(plan)
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield _StageLines(plan)


class _Silent:
    """For ``--json``."""

    def begin(self, stage: PlannedStage, reused: bool) -> None:
        pass

    def update(self, report: Report) -> None:
        pass

    def end(self, seconds: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Count:
    """Which stage of how many, and the reports of the current one."""

    def __init__(self, plan: Plan) -> None:
        self._total = len(plan.stages)
        self._number = 0
        self.name = ""
        self.reports: list[Report] = []

    def begin(self, stage: PlannedStage) -> str:
        """``stage 3 of 10: cpt``"""
        self._number += 1
        self.name = stage.name
        self.reports.clear()
        return f"stage {self._number} of {self._total}: {stage.name}"

    @property
    def done(self) -> int:
        """Stages before the current one."""
        return self._number - 1

    def add(self, report: Report) -> bool:
        """Remember a report; False if it is the one that we have seen."""
        if self.reports and report.time == self.reports[-1].time:
            return False
        self.reports = [*self.reports[-KEPT_REPORTS:], report]
        return True

    @property
    def eta(self) -> str:
        """Time left in the current phase, or an empty text."""
        left = progress.seconds_left(self.reports)
        return "" if left is None else duration(left)


def _metrics(report: Report) -> str:
    """``loss 2.314``, with whatever else a stage reports where it has no loss."""
    chosen = {"loss": report.metrics["loss"]} if "loss" in report.metrics else report.metrics
    return "  ".join(f"{name} {value:.4g}" for name, value in list(chosen.items())[:3])


def progress_text(report: Report) -> str:
    """``training 12 of 60  loss 2.314``"""
    steps = f"{report.step}" if report.total is None else f"{report.step} of {report.total}"
    return "  ".join(filter(None, [" ".join(filter(None, [report.phase or "step", steps])), _metrics(report)]))


class _StageLines:
    """For a log: a line when a stage begins, one when it ends, and one every ten seconds between."""

    def __init__(self, plan: Plan) -> None:
        self._count = _Count(plan)
        self._said = 0.0

    def begin(self, stage: PlannedStage, reused: bool) -> None:
        title = self._count.begin(stage)
        _say(f"{title} ({stage.kind}): {'sealed already, reused' if reused else 'begins'}")
        self._said = time.monotonic()

    def update(self, report: Report) -> None:
        if not self._count.add(report) or time.monotonic() - self._said < LINE_SECONDS:
            return
        self._said = time.monotonic()
        eta = self._count.eta
        _say(f"  {self._count.name}: {progress_text(report)}" + (f"  {eta} left" if eta else ""))

    def end(self, seconds: float) -> None:
        reports = self._count.reports
        last = f", {progress_text(reports[-1])}" if reports else ""
        _say(f"  {self._count.name}: sealed after {duration(seconds)}{last}")

    def note(self, text: str) -> None:
        _say(f"  {text}")


_CHAIN_BAR = "{desc:<28} |{bar:24}| {elapsed}"
_STAGE_BAR = "{desc:<28} |{bar:24}| {unit}"  # the unit holds our text: a postfix would begin with a comma


class _StageBars:
    """For a terminal: finished stages as lines above, then the bar of the current stage and that of the whole chain."""

    def __init__(self, plan: Plan) -> None:
        self._count = _Count(plan)
        self._stage = _bar(1, 0, leave=False, form=_STAGE_BAR)
        self._chain = _bar(len(plan.stages), 1, leave=False, form=_CHAIN_BAR)

    def begin(self, stage: PlannedStage, reused: bool) -> None:
        self._chain.set_description_str(self._count.begin(stage), refresh=False)
        if reused:
            self._print(f"{stage.name:16} sealed already, reused")
            self._advance()
            return
        self._stage.reset(1)
        self._stage.set_description_str(stage.name, refresh=False)
        self._show("starting")

    def update(self, report: Report) -> None:
        self._count.add(report)
        eta = self._count.eta
        self._stage.total = report.total or 0
        self._stage.n = report.step
        self._show("  ".join(filter(None, [progress_text(report), eta and f"{eta} left"])))

    def end(self, seconds: float) -> None:
        last = "".join(progress_text(report) for report in self._count.reports[-1:])
        self._print("  ".join(filter(None, [f"{self._count.name:16} sealed after {duration(seconds)}", last])))
        self._advance()

    def note(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        self._stage.close()
        self._chain.close()

    def _advance(self) -> None:
        self._chain.n = self._count.done + 1
        self._chain.refresh()

    def _show(self, text: str) -> None:
        self._stage.unit = text
        self._stage.refresh()
        self._chain.refresh()  # the clock goes on where nothing else moves

    def _print(self, text: str) -> None:
        self._chain.write(text, file=sys.stderr)
