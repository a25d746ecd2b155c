"""The commands about a run of 1,000 stages in a workspace whose store holds 100,000 sealed entries: CPU, clock, memory.

The run and squeue's answer are those of ``status.py``, the entries those of ``store.py``. ``gc`` looks at all entries
and removes none (they are new). ``quota`` is what a job asks before it writes a checkpoint.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import status
import store
from measure import OVERNIGHT, PAIRS, Spread, child, report

from jobs.core import seal

LIMIT = 10.0
"""Seconds of CPU for each."""

MEMORY = 200
"""MB of a process at most."""

QUOTA = """
import sys
from pathlib import Path
from jobs.lifecycle import space
print(space.used_bytes(Path(sys.argv[1]) / "store"))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="onb-") as name:
        directory = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        run = status.make_run(directory)
        for planned in run.plan().stages[: status.SEALED]:
            entry = planned.store(run.workspace)
            entry.output.mkdir()
            (entry.output / "model").write_text("x", encoding="utf-8")
            facts = {"kind": seal.SealKind.CHECKPOINT, "format": "hf", "fingerprint": planned.fingerprint}
            seal.seal_directory(entry.output, entry.seal, **facts)
        store.fill(run.workspace)
        environment = status.programs(directory)
        scontrol = directory / "bin" / "scontrol"  # resume tells each waiting job which jobs it waits for
        scontrol.write_text("#!/bin/sh\n", encoding="utf-8")
        scontrol.chmod(0o755)
        print(f"a run of {status.STAGES:,} stages, {store.ENTRIES:,} entries in the store")
        verbs = {
            "status": ["status", run.id],
            "why": ["why", run.id],
            "doctor": ["doctor", run.id],
            "resume": ["resume", run.id],
            "list": ["list"],
            "gc": ["gc"],
        }
        commands = {
            verb: [sys.executable, "-c", store.PEAK, OVERNIGHT[-1], *words, "--workspace", run.workspace.root, "--json"]
            for verb, words in verbs.items()
        }
        commands["quota, the first time"] = commands["quota"] = [
            sys.executable, "-c", "import runpy, resource\n" + QUOTA, run.workspace.root,
        ]  # fmt: skip
        for label, command in commands.items():
            rounds = 1 if label.endswith("time") else PAIRS
            ends = (0, 1) if label in ("status", "why", "doctor") else (0,)
            costs = [child(command, environment=environment, expected=ends) for _ in range(rounds)]
            used = Spread.of([cost.cpu for cost in costs])
            report(f"{label}, CPU seconds", used, f"{LIMIT} s", used.median < LIMIT)
            report("  by the clock", Spread.of([cost.wall for cost in costs]))
            peak = [line.split()[1] for line in costs[-1].output.splitlines() if line.startswith("peak ")]
            if peak:
                report("  memory", f"{peak[-1]} MB", f"{MEMORY} MB", int(peak[-1]) <= MEMORY)


if __name__ == "__main__":
    main()
