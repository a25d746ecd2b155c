"""Beside the work on every node: sees that no step is made any more, has the stacks written, and ends the work.

A process of its own, because a rank that hangs may hold its interpreter's lock. The monitor of rank 0 watches the
steps; its finding is a file, on which the monitors of all nodes act: each asks the ranks of its node for their stacks
(a signal that ``faulthandler`` answers in C, whatever Python is doing; py-spy where it is installed), and kills them.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.core import files, progress
from jobs.core.progress import Report
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.lifecycle import space
from jobs.lifecycle.judge import RANKS
from jobs.lifecycle.start import Start, event, write_failure

POLL_SECONDS = 1.0

START_SECONDS = 1800.0
"""Before the first step: a large model from a cold file system, the index of a large corpus, a compiler."""

FLOOR_SECONDS = 600.0
"""Silence that is never taken for a hang where the profile gives no ``stall_after``."""

USUAL_STEPS, LONGEST_STEPS = 20.0, 3.0
"""No hang before this many usual steps, and this many of the longest one seen, would have passed."""

ENOUGH_STEPS = 5
"""So many steps measured, and the time to the first one does not count any more."""

SAVE_BYTES_PER_SECOND = 50e6
"""A save that has not been measured is taken to be written this slowly, a measured one to take three times as long."""

STACK_SECONDS = 15.0
"""How long the ranks may take to write their stacks."""

WATCHED_KINDS = frozenset({"cpt", "sft", "dpo", "evaluate"})
"""Kinds that report steps; data stages and conversions may be silent for hours."""

STACK_SIGNAL = signal.SIGUSR1


@dataclass
class HangTimeout:
    """Hang timeout, adapted to the step times of this start."""

    stall_seconds: float | None
    save_seconds: float
    began: float
    last: Report | None = None
    _gaps: list[float] = field(default_factory=list)
    _longest: float = 0.0
    _to_first: float = 0.0

    def see(self, report: Report) -> None:
        """A newer report: the time since the one before is a step's. That to the first one holds the start, too (an
        hour from a slow file system, say), and counts only while there is little else to go by."""
        if self.last is None:
            self._to_first, self.last = report.time - self.began, report
            return
        if (report.phase, report.restart) != (self.last.phase, self.last.restart):
            gap = report.time - self.last.time
        else:
            gap = (report.time - self.last.time) / max(1, report.step - self.last.step)
            self._gaps = [*self._gaps[-99:], gap]
        self._longest = max(self._longest, gap)
        self.last = report

    @property
    def seconds(self) -> float:
        """Silence after which the work is taken to hang."""
        floor = FLOOR_SECONDS if self.stall_seconds is None else self.stall_seconds
        if self.last is None:
            return max(START_SECONDS, floor)
        usual = USUAL_STEPS * statistics.median(self._gaps) if self._gaps and self.stall_seconds is None else 0.0
        longest = self._longest if len(self._gaps) >= ENOUGH_STEPS else max(self._longest, self._to_first)
        return max(floor, usual, LONGEST_STEPS * longest) + self.save_seconds


def start(spec: StageSpec, begun: Start, rank: int, leads: bool = True) -> subprocess.Popen[bytes] | None:
    """Called by every rank before its work: register it, and start the monitor of this node where it ``leads`` that.

    The monitor ends with the rank: it holds the reading end of a pipe to it. Where the ranks would write their stacks
    is memory, of which only the monitor of their node makes files: thousands of ranks make none on the shared file
    system, and each node one.
    """
    import faulthandler

    stacks = os.memfd_create("stacks")  # as long as the process
    faulthandler.register(STACK_SIGNAL, file=stacks, all_threads=True, chain=False)
    directory = spec.stage_paths.ranks(begun.job, begun.restart)
    directory.mkdir(parents=True, exist_ok=True)
    value = {"rank": rank, "pid": os.getpid(), "stacks": f"/proc/{os.getpid()}/fd/{stacks}", "time": time.time()}
    files.append_json_line(directory / f"{node_name()}{RANKS}", value, durable=False)
    if spec.kind not in WATCHED_KINDS or not leads:
        return None
    boot = Path(__file__).parents[1] / "boot.py"
    # Its own start would be too late: quick steps are over before this process is up.
    command = [sys.executable, str(boot), "monitor", str(_spec_path(spec)), str(rank), str(time.time())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


_ANSWERED = ".answered"
"""Behind the name of a node: the file that says that all of its ranks have written their stacks."""


def node_name() -> str:
    """This node as Slurm calls it, else as it calls itself."""
    return os.environ.get("SLURMD_NODENAME", "") or socket.gethostname()


def _spec_path(spec: StageSpec) -> Path:
    return spec.stage_paths.scripts(spec.attempt).spec


def main(spec: StageSpec, begun: Start, rank: int, began: float) -> int:
    """Watch until the rank that started this process, at ``began`` (epoch second), has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    monitor = _Monitor(spec, begun, began, watches=rank == 0)
    parent = os.getppid()
    pause = POLL_SECONDS if rank == 0 else poll_seconds(len(begun.nodes))
    while os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin], [], [], pause)
        if ready:
            return 0
        if monitor.has_stalled():
            monitor.end()
            return 0
    return 0


def poll_seconds(nodes: int) -> float:
    """How often the monitors of other nodes look for the finding of the first one's: all together, a hundred times a
    second."""
    return max(POLL_SECONDS, nodes / 100)


class _Monitor:
    def __init__(self, spec: StageSpec, begun: Start, began: float, watches: bool) -> None:
        self._spec = spec
        self._start = begun
        self._watches = watches
        self._stage = spec.stage_paths
        self._file = self._stage.stall(begun.job, begun.restart)
        self._ranks = self._stage.ranks(begun.job, begun.restart)
        size, _ = space.checkpoint_bytes(spec) if spec.trains else (0, "")
        estimate = size / SAVE_BYTES_PER_SECOND
        self._patience = HangTimeout(spec.stall_seconds, estimate, began)
        self._silent = 0.0
        self._looked = time.monotonic()

    def has_stalled(self) -> bool:
        """Whether this node's ranks are to be ended. Rank 0's monitor finds out, the others read it."""
        if self._file.exists():
            return True
        if not self._watches:
            return False
        now = time.monotonic()
        # Time in which this process did not run either (a suspended job) is not silence.
        self._silent += min(now - self._looked, 5 * POLL_SECONDS)
        self._looked = now
        newest = progress.latest(self._stage.progress)
        before = self._patience.last
        if newest and newest.time >= self._patience.began and (before is None or newest.time > before.time):
            self._patience.see(newest)
            self._silent = 0.0
            longest = longest_save(self._spec)
            if longest:
                self._patience.save_seconds = 3 * longest
        if self._silent < self._patience.seconds:
            return False
        step = self._patience.last.step if self._patience.last else None
        files.write_json(self._file, {"silent": round(self._silent, 1), "step": step, "limit": self._patience.seconds})
        return True

    def end(self) -> None:
        """Stacks of this node, then (rank 0's monitor) the result, then SIGKILL."""
        mine = [rank for rank in files.read_json_lines(self._ranks / f"{node_name()}{RANKS}") if _is_a_rank(rank)]
        mine.sort(key=lambda rank: int(rank["rank"]))
        for rank in mine:
            _signal(int(rank["pid"]), STACK_SIGNAL)
        deadline = time.monotonic() + STACK_SECONDS
        while time.monotonic() < deadline and not all(map(_stacks, mine)):
            time.sleep(0.2)
        for rank in mine:
            self._keep_stacks(rank)
        if all(map(_stacks, mine)):
            (self._ranks / f"{node_name()}{_ANSWERED}").touch()
        if self._watches:
            self._tell(*self._nodes(), mine)
        for rank in mine:
            _signal(int(rank["pid"]), signal.SIGKILL)

    def _nodes(self) -> tuple[list[str], list[str]]:
        """Names of all nodes, and of those whose ranks have not all written their stacks, which the others may be a
        while about: by listing, not by files of theirs."""
        deadline = time.monotonic() + poll_seconds(len(self._start.nodes)) + STACK_SECONDS
        while True:
            names = files.fresh_names(self._ranks)
            nodes = sorted(name.removesuffix(RANKS) for name in names if name.endswith(RANKS))
            mute = [node for node in nodes if f"{node}{_ANSWERED}" not in names]
            if not mute or time.monotonic() > deadline:
                return nodes, mute
            time.sleep(POLL_SECONDS)

    def _keep_stacks(self, rank: dict[str, Any]) -> None:
        """Write the stacks of a rank into the logs; frames of native code too, where py-spy is installed and may
        look."""
        text = _stacks(rank)
        if text == ENDED:
            return
        program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if program is not None:
            command = [program, "dump", "--nonblocking", "--pid", str(rank["pid"])]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, text=True, timeout=STACK_SECONDS, check=False)
                text += f"\npy-spy:\n{done.stdout}" if done.returncode == 0 else ""
        if text:
            files.write_atomic(self._stack(rank), text)

    def _stack(self, rank: dict[str, Any]) -> Path:
        return self._stage.stack(self._start.job, self._start.restart, int(rank["rank"]))

    def _tell(self, names: list[str], mute: list[str], mine: list[dict[str, Any]]) -> None:
        last = self._patience.last
        at = f"since step {last.step}" if last else "before the first step"
        text = f"no step for {self._silent:.0f} s {at} (limit {self._patience.seconds:.0f} s)"
        text += f"; no answer from {', '.join(mute)}" if mute else ""
        source = str(self._stack(mine[0])) if mine else ""
        nodes = mute or (names if len(names) == 1 else [])
        write_failure(self._spec, self._start, FailureClass.HANG, text, source=source, nodes=nodes)
        event(self._stage, self._start, "hang", silent=round(self._silent, 1), step=last.step if last else None)


ENDED = "ended"


def _is_a_rank(rank: dict[str, Any]) -> bool:
    """Not a damaged line: a signal to 0 or -1 would be one to others, too."""
    return isinstance(rank.get("rank"), int) and isinstance(pid := rank.get("pid"), int) and pid > 1


def _stacks(rank: dict[str, Any]) -> str:
    """The stacks that a rank has written; ``ENDED`` of one that has ended by itself."""
    try:
        return Path(str(rank["stacks"])).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ENDED
    except OSError:
        return ""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended by itself


def longest_save(spec: StageSpec) -> float:
    """Seconds of the longest save measured in any start of this stage of the run; 0 where none was."""
    lines = files.read_json_lines(spec.stage_paths.events)
    took = [line.get("seconds") for line in lines if line.get("event") == "save_took"]
    return max((float(seconds) for seconds in took if isinstance(seconds, int | float)), default=0.0)
