"""What a watcher shows, as text: a row a stage, the end of the chain, the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.core import files, progress
from jobs.core.progress import Report
from jobs.core.validation import LOSS
from launch.base.text import clock, count, duration, table
from launch.plan.estimates import Estimate
from launch.plan.model import Plan
from launch.runs import secret_files
from launch.runs.rundir import Run
from launch.status import logs
from launch.status.model import State, are_over
from launch.watch.feed import Seen

CELLS = 8
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
LOG_BYTES = 16 * 1024
MOST_REPORTS = 400


@dataclass(frozen=True)
class StageRow:
    """One stage. ``losses``: the newest that were reported, oldest first; ``left``: seconds."""

    stage: str
    state: State
    job: str
    nodes: str
    step: int | None
    total: int | None
    losses: tuple[float, ...]
    tokens_per_second: float | None
    validation: float | None
    left: float | None
    note: str


@dataclass(frozen=True)
class Screen:
    """``ends``: when the chain is predicted to end; ``is_least``: it may be later, since not all of it is known."""

    title: str
    rows: tuple[StageRow, ...]
    ends: float | None
    is_least: bool
    asked_at: float
    silence: str

    @property
    def is_over(self) -> bool:
        """Whether nothing goes on any more."""
        return are_over(row.state for row in self.rows)


class ReportCache:
    """The newest reports of stages; a file is read again only when it has changed, and of it only new lines are
    parsed."""

    def __init__(self) -> None:
        self._known: dict[Path, _Known] = {}

    def of(self, path: Path) -> list[Report]:
        known = self._known.get(path, _NOTHING)
        state = files.state(path)
        if state != known.state:
            self._known[path] = known = _read_on(path, known, state)
        return known.reports


@dataclass(frozen=True)
class _Known:
    """``last``: the newest line that is a report."""

    state: object
    last: str
    reports: list[Report]


_NOTHING = _Known(None, "", [])


def _read_on(path: Path, known: _Known, state: object) -> _Known:
    lines = [] if state is None else files.tail(path, progress.WINDOW_BYTES)
    seen = max((number for number, line in enumerate(lines) if line == known.last), default=-1)
    found, last = (list(known.reports), known.last) if seen >= 0 else ([], "")
    for line in lines[seen + 1 :]:
        if (report := Report.parse(line)) is not None:
            last = line
            if not report.phase:
                found.append(report)
    return _Known(state, last, found[-MOST_REPORTS:])


def make(run: Run, plan: Plan, seen: Seen, known: ReportCache, estimates: dict[str, Estimate], now: float) -> Screen:
    """From the last answer of the queue and what the stages have reported since."""
    rows = []
    for planned, one in zip(plan.stages, seen.status.stages, strict=True):
        reports = known.of(run.paths.stage(planned.name).progress)
        last = reports[-1] if reports else None
        step, total = (last.step, last.total) if last is not None else (one.step, one.total)
        held_out = [report.metrics[LOSS] for report in reports if LOSS in report.metrics]
        left = one.left
        if one.state is State.RUNNING and len(reports) > 1 and last is not None and last.total:
            first = reports[max(0, len(reports) - 40)]
            pace = (last.time - first.time) / max(1, last.step - first.step)
            left = max(0.0, (last.total - last.step) * pace - max(0.0, now - last.time))
        rows.append(
            StageRow(
                planned.name, one.state, one.job, one.nodes, step, total,
                tuple(report.metrics["loss"] for report in reports if "loss" in report.metrics),
                last.metrics.get("tokens_per_second") if last is not None else None,
                held_out[-1] if held_out else None, left,
                "" if one.state in (State.RUNNING, State.SEALED) else one.text,
            )
        )  # fmt: skip
    ends, is_least = _ends(plan, rows, estimates, now)
    return Screen(f"{run.id} {plan.pipeline}", tuple(rows), ends, is_least, seen.time, seen.status.silence)


def _ends(
    plan: Plan, rows: Sequence[StageRow], estimates: dict[str, Estimate], now: float
) -> tuple[float | None, bool]:
    """When the longest way through the chain ends; whether a part of it has no estimate."""
    ready: dict[str, float] = {}
    least = False
    for planned, row in zip(plan.stages, rows, strict=True):
        start = max([now, *(ready[name] for name in planned.parents if name in ready)])
        if row.state is State.SEALED:
            continue
        if row.state.is_over:
            return None, False
        estimate = estimates.get(planned.name)
        seconds = row.left if row.state is State.RUNNING else None
        if seconds is None and estimate is not None and estimate.seconds is not None:
            seconds = sum(estimate.seconds) / 2
        least |= seconds is None or row.state is not State.RUNNING  # nobody knows how long a queue is
        ready[planned.name] = start + (seconds or 0.0)
    return (max(ready.values()), least) if ready else (None, False)


def spark(values: Sequence[float], blocks: str = BLOCKS) -> str:
    """The last values in ``CELLS`` characters, each the mean of a part."""
    found = [value for value in values if value == value][-64:]
    if not found:
        return ""
    cells = min(CELLS, len(found))
    parts = [found[n * len(found) // cells : (n + 1) * len(found) // cells] for n in range(cells)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    top = len(blocks) - 1
    return "".join(blocks[round((one - low) / (high - low) * top) if high > low else 0] for one in means)


def lines(screen: Screen, width: int, selected: int = -1, blocks: str = BLOCKS) -> list[str]:
    """The rows as text, none wider than ``width``."""
    header = ("", "STAGE", "STATE", "JOB", "NODES", "STEP", "LOSS", "TOK/S", "VALID.", "LEFT", "NOTE")
    rows = [_cells(row, number == selected, blocks) for number, row in enumerate(screen.rows)]
    return [line[:width] for line in table(header, rows, right=(5, 7, 8, 9))]


def _cells(row: StageRow, selected: bool, blocks: str) -> list[str]:
    step = "" if row.step is None else f"{row.step}" + (f"/{row.total}" if row.total else "")
    loss = f"{row.losses[-1]:.4g} {spark(row.losses, blocks)}" if row.losses else ""
    speed = row.tokens_per_second
    return [
        ">" if selected else " ", row.stage, row.state.value, row.job, row.nodes, step, loss,
        "" if speed is None else f"{speed / 1000:.1f}k" if speed >= 1000 else f"{speed:.0f}",
        "" if row.validation is None else f"{row.validation:.4g}",
        "" if row.left is None or row.state is State.SEALED else duration(row.left), row.note,
    ]  # fmt: skip


def heading(screen: Screen, now: float) -> str:
    """Which run, how far, and when it is predicted to end."""
    done = sum(row.state is State.SEALED for row in screen.rows)
    ends = ""
    if screen.ends is not None:
        ends = f"  ends {'not before' if screen.is_least else 'about'} {clock(screen.ends, now)}"
    silence = f"  {screen.silence.splitlines()[0]}" if screen.silence else ""
    return f"{screen.title}  {done} of {count(len(screen.rows), 'stage')} sealed{ends}{silence}"


def log_lines(run: Run, stage: str, most: int, width: int | None = None) -> list[str]:
    """The end of the newest log of a stage, without secrets and without what would move a cursor; broken at ``width``,
    and of that the last lines, so that the newest is seen."""
    found = logs.all_of(run.paths.stage(stage))
    if not found:
        return ["no log yet"]
    secret = secret_files.redactor(run.paths)
    lines = [printable(secret.text(line)) for line in files.tail(found[-1], LOG_BYTES)[-most:]]
    if width is not None:
        lines = [line[at : at + width] for line in lines for at in range(0, max(1, len(line)), width)]
    return lines[-most:]


def printable(text: str) -> str:
    """Without control characters: a log may hold what a terminal obeys."""
    return "".join(one if one.isprintable() else " " for one in text.expandtabs(4))
