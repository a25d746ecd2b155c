"""``overnight report --html`` of a night of 10 stages with 100,000 reports and 2,000 samples each: CPU, memory, size of
the page, and, where Chromium is installed, the time to its first paint and what it asks the network for.

The run directory is made with our own functions; half of the stages train, half of them evaluate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from measure import OVERNIGHT, PAIRS, Spread, child, report  # noqa: E402
from status import programs, seal_output, stage, submitted  # noqa: E402

from jobs.core import results, seal  # noqa: E402
from launch.plan.model import PlannedStage  # noqa: E402
from launch.runs.rundir import Run  # noqa: E402
from tests.support import browser  # noqa: E402

STAGES, REPORTS, SAMPLES = 10, 100_000, 2000
CPU, MEMORY, SIZE, PAINT = 3.0, 300, 1.0, 1.0


def planned(number: int) -> PlannedStage:
    """Every other stage evaluates."""
    made = stage(number)
    return replace(made, kind="evaluate", produces_kind="evaluation") if number % 2 else made


def make_run(directory: Path) -> Run:
    """A run whose stages are sealed."""
    stages = list(map(planned, range(STAGES)))
    run, _ = submitted(directory, stages, sealed=STAGES)
    for number, one in enumerate(stages):
        write_reports(run, one, number)
        if one.produces_kind == "evaluation":
            write_samples(run, one, number)
    return run


def write_reports(run: Run, one: PlannedStage, number: int) -> None:
    """Steps with some noise, and a start that was lost half way."""
    began = time.time() - REPORTS
    with open(run.paths.stage(one.name).progress, "w", encoding="utf-8") as stream:
        for at in range(REPORTS):
            step = at if at < REPORTS // 2 else at - 500
            metrics = {
                "loss": 4.0 / (1 + step / 1000) + (at * 7919 % 13) / 100,
                "lr": 1e-5,
                "tokens_per_second": 4e4 + at % 97,
            }
            line = {
                "time": began + at,
                "step": step + 1,
                "total": REPORTS,
                "restart": int(at >= REPORTS // 2),
                "metrics": metrics,
            }
            stream.write(json.dumps(line, sort_keys=True) + "\n")  # as our writer has them


def write_samples(run: Run, one: PlannedStage, number: int) -> None:
    """A task whose answers all differ, and its seal."""
    store = one.store(run.workspace)
    numbers = {"value": 30.0 + number, "low": 29.0, "high": 41.0, "n": SAMPLES, "higher_is_better": True}
    results.write(store.output, {"translation": {"metrics": {"chrf": numbers}}})
    with open(store.output / "samples.jsonl", "w", encoding="utf-8") as stream:
        for at in range(SAMPLES):
            stream.write(json.dumps({
                "task": "translation", "id": f"r{at}", "asked": "q" * 300, "reference": "r" * 300,
                "hypothesis": f"{one.name} {at} " + "h" * 300,
            }) + "\n")  # fmt: skip
    seal_output(run, one, seal.SealKind.EVALUATION, "json", [results.FILE, "samples.jsonl"])


def peak(command: list[str]) -> float:
    """MB of the largest process of a command, measured by a Python between it and us."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=2, check=False); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="overnight-report-") as scratch:
        directory = Path(scratch)
        os.environ["XDG_STATE_HOME"] = str(directory / "state")
        run = make_run(directory)
        for name in ("squeue", "sacct"):  # all jobs have ended long ago
            (directory / f"{name}.rows").touch()
        os.environ |= programs(directory)
        command = [*OVERNIGHT, "report", run.id, "--workspace", str(run.workspace.root), "--html"]
        used = Spread.of([child(command).cpu for _ in range(PAIRS)])
        print(f"overnight report --html of {STAGES} stages x {REPORTS:,} reports, {SAMPLES:,} samples a task")
        report("CPU seconds", used, f"{CPU:g} s", used.median <= CPU)
        memory = peak(command)
        report("memory of the largest process, MB", f"{memory:.0f}", f"{MEMORY}", memory <= MEMORY)
        size = run.paths.page.stat().st_size / 1e6
        report("size of the page, MB", f"{size:.3f}", f"{SIZE:g}", size <= SIZE)
        if browser.MISSING:
            return
        with browser.browser(directory) as window:
            paints = []
            for _ in range(PAIRS):
                window.requests()
                window.open(run.paths.page.as_uri())
                paints.append(window.script(FIRST_PAINT) / 1000)
            asked = [address for address in window.requests() if address != run.paths.page.as_uri()]
        first = Spread.of(paints)
        report("first paint in Chromium, seconds by the clock", first, f"{PAINT:g} s", first.median <= PAINT)
        report("requests", str(len(asked)), "0", not asked)


FIRST_PAINT = (
    "return performance.getEntriesByType('paint').find(one => one.name === 'first-contentful-paint').startTime"
)

if __name__ == "__main__":
    main()
