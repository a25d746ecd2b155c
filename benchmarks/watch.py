"""``overnight watch`` on a terminal of 80 x 24: what its start and watching cost, what goes over the line, and how
often ten watchers ask the queue.

A chain of eight stages, one of which reports a step each second; squeue is a program that prints prepared rows and
notes each call. ``BENCHMARK_SECONDS=20``: watched for less than a minute.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from measure import OVERNIGHT, PAIRS, Spread, child, report
from status import make_run, programs

from jobs.core.progress import ProgressWriter
from launch.runs.rundir import Run

SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "60"))
WATCHERS = 10
STAGES, SEALED = 8, 3
START_CPU, OF_A_CORE, BYTES_A_SECOND, ASKED_A_MINUTE = 0.7, 0.01, 1500, 4
TICKS = os.sysconf("SC_CLK_TCK")


class Terminal:
    """A command on a terminal of its own; ``seen`` counts the bytes that came over it."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        own = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**own, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = 0

    def read(self, seconds: float, until: bytes = b"") -> bytes:
        """What comes within so long, or up to ``until``."""
        end, found = time.monotonic() + seconds, b""
        while (left := end - time.monotonic()) > 0 and not (until and until in found):
            if select.select([self._ours], [], [], min(left, 0.2))[0]:
                found += os.read(self._ours, 65536)
        self.seen += len(found)
        return found

    @property
    def cpu(self) -> float:
        """Seconds that it has taken, with those of its children that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS

    def leave(self) -> None:
        """Press q; killed where that is not enough."""
        with suppress(OSError):
            os.write(self._ours, b"q")
        with suppress(OSError):  # the other side is closed: it has left
            self.read(5)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)


def watch(run: Run) -> list[str]:
    """The command."""
    return [*OVERNIGHT, "watch", run.id, "--workspace", str(run.workspace.root)]


def start(run: Run, environment: Mapping[str, str]) -> None:
    """CPU from the start to the first whole screen, and that of the imports which it cannot do without."""
    own, bare = [], []
    for _ in range(PAIRS):
        terminal = Terminal(watch(run), environment)
        assert f"{SEALED} of {STAGES} stages".encode() in terminal.read(60, until=b"log of")
        own.append(terminal.cpu)
        terminal.leave()
        imported = "import textual.app, textual.widgets, textual.containers, textual.binding"
        bare.append(child([sys.executable, "-c", imported], environment=environment).cpu)
    first, second = Spread.of(own), Spread.of(bare)
    report("start of watch, CPU to the first screen", first, f"{START_CPU} s", first.median <= START_CPU)
    print(f"  of that the import of textual: {second} s; watch over it: {first.median / second.median:.2f} x")


def while_it_watches(run: Run, environment: Mapping[str, str], calls: Path) -> None:
    """CPU and bytes of one on a terminal beside others that follow line by line, and what all of them ask."""
    terminal = Terminal(watch(run), environment)
    terminal.read(60, until=b"log of")
    others = [
        subprocess.Popen([*watch(run), "--plain"], env=dict(environment), stdout=subprocess.DEVNULL)
        for _ in range(WATCHERS - 1)
    ]
    writer = ProgressWriter(run.paths.stage(f"stage-{SEALED}").progress)
    terminal.read(15)
    calls.unlink(missing_ok=True)
    cpu, seen, began = terminal.cpu, terminal.seen, time.monotonic()
    step = 1000
    while time.monotonic() - began < SECONDS:
        step += 1
        writer.report(step, 2000, loss=1.0 + 1.0 / step, tokens_per_second=40_000.0 + step)
        terminal.read(1)
    took = time.monotonic() - began
    asked = len(calls.read_text().split()) if calls.exists() else 0
    share, line = (terminal.cpu - cpu) / took, (terminal.seen - seen) / took
    for one in others:
        one.kill()
        one.wait()
    terminal.leave()
    report("share of a core while a step comes each second", f"{share:.2%}", f"{OF_A_CORE:.0%}", share <= OF_A_CORE)
    report("bytes a second over the terminal", f"{line:,.0f}", f"{BYTES_A_SECOND:,}", line <= BYTES_A_SECOND)
    most = round(took / 60 * ASKED_A_MINUTE) + 1  # the window may begin just before a question
    report(f"squeue in {took:.0f} s, {WATCHERS} watchers", str(asked), f"{most}", asked <= most)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="overnight-watch-") as scratch:
        directory = Path(scratch)
        run = make_run(directory, STAGES, SEALED)
        environment = {**programs(directory), "XDG_STATE_HOME": str(directory / "state")}
        start(run, environment)
        while_it_watches(run, environment, directory / "calls")


if __name__ == "__main__":
    main()
