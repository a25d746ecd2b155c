"""What every benchmark needs: timed children, alternating pairs, medians with their spread, and a line per result.

Wall time on a shared machine says little, so each child is measured by the CPU time of itself and of all its own
children (``os.wait4``), and what is compared runs in turn: A B A B ..., so that both see the same neighbours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PAIRS = int(os.environ.get("BENCHMARK_PAIRS", "5"))
"""How often each side is measured."""

OVERNIGHT = (
    [str(Path(sys.executable).with_name("overnight"))]
    if Path(sys.executable).with_name("overnight").exists()
    else [sys.executable, "-m", "launch.cli"]
)
"""The command as installed beside the interpreter that runs the benchmark."""


class Cost(NamedTuple):
    """Seconds that a child took: by the clock, and of CPU including its children that it waited for."""

    wall: float
    cpu: float
    output: str


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.count})"


def child(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    expected: Sequence[int] = (0,),
) -> Cost:
    """Run a command to its end and say what it cost.

    Python may cache byte code, as it does wherever it is not forbidden: else every child compiles all of our modules.

    Raises:
        RuntimeError: it ended with another exit code; the message has what it printed.
    """
    given = os.environ if environment is None else environment
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        env={name: value for name, value in given.items() if name != "PYTHONDONTWRITEBYTECODE"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = process.stdout.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)  # of this child alone; getrusage(RUSAGE_CHILDREN) adds all of them up
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode not in expected:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{output[-4000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, output)


def alternate(sides: Mapping[str, Callable[[], object]], pairs: int = PAIRS) -> dict[str, list]:
    """Call every side ``pairs`` times in turn, after one call each that does not count (file caches, byte code)."""
    for side in sides.values():
        side()
    found: dict[str, list] = {name: [] for name in sides}
    for number in range(pairs):
        # Every other round backwards: what follows upon a costly neighbour is not always the same side.
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
    return found


def report(what: str, value: Spread | str, target: str = "", met: bool | None = None) -> None:
    """Print a result. A missed target is said, not raised: machines differ, and a number is no test."""
    verdict = "" if met is None else "  ok" if met else "  MISSED"
    print(f"  {what:<58} {value!s:<36} {f'target {target}' if target else ''}{verdict}".rstrip(), flush=True)
