"""Kill a command at an exact system call, with strace: no hook in our code, and no luck with timing.

A clean run is traced once and gives the list of the calls that change what others can see. Killing at the entry of each
of them leaves, one after the other, every state that a crash can leave on disk and in Slurm.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: What changes a directory, makes a process, waits for one, or ends. Python uses one name of each kind or the other.
_CALLS = (
    "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir",
    "vfork", "clone", "clone3", "fork", "poll", "wait4", "waitid", "write", "exit_group",
)  # fmt: skip
_LINE = re.compile(r"([a-z0-9_]+)\((.*)")

#: Their number differs between runs: an answer may come in one piece or in two, a process be asked after twice.
UNCERTAIN = ("poll", "wait4", "waitid")


@dataclass(frozen=True)
class Boundary:
    """The ``number``-th call of its name in the process; ``text``: its arguments in the clean run."""

    call: str
    number: int
    text: str

    @property
    def certain(self) -> bool:
        """Whether another run makes this very call, too."""
        return self.call not in UNCERTAIN

    def changes(self, below: str) -> bool:
        """Whether it makes a name with ``below`` in it: a directory or a link."""
        return self.call.startswith(("mkdir", "link")) and below in self.text and " = -1 " not in self.text

    def __str__(self) -> str:
        return f"{self.call}#{self.number}({self.text[:100]}"


@functools.cache
def works() -> bool:
    """Whether strace is here and may trace (a container may forbid it)."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", sys.executable, "-c", ""], capture_output=True).returncode == 0


def recording(log: Path) -> list[str]:
    """What to put before a command to record its calls; those of its children are not."""
    return ["strace", "-y", "-s", "200", "-o", str(log), "-e", "trace=" + ",".join(f"?{call}" for call in _CALLS)]


def recorded(log: Path) -> list[Boundary]:
    """All recorded calls, in order."""
    counts: Counter[str] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match:
            counts[match[1]] += 1
            found.append(Boundary(match[1], counts[match[1]], match[2]))
    return found


def killing(boundary: Boundary) -> list[str]:
    """What to put before a command to kill it with SIGKILL when it enters that call. Its children live on."""
    call, number = boundary.call, boundary.number
    return ["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]


def sample(boundaries: Sequence[Boundary], count: int) -> list[Boundary]:
    """``count`` of them, evenly spaced, the first and the last among them."""
    if count >= len(boundaries):
        return list(boundaries)
    return [boundaries[round(index * (len(boundaries) - 1) / (count - 1))] for index in range(count)]
