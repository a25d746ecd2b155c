"""How light the command is: CPU of ``overnight --help`` and ``overnight plan`` (all processes), and what they import.

The first ``plan`` in a workspace starts one child for each interpreter of the profile, to ask for versions; its time is
counted. Later ones find the answers in the workspace while the environments are the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import toychain
from measure import OVERNIGHT, Cost, Spread, alternate, child, report

HELP_TARGET = 0.25
PLAN_RATIO = 20
"""Times the CPU of a Python that does nothing, in the same run: seconds are those of a machine."""

BARE = "python -c pass"
HEAVY = (
    "torch", "transformers", "trl", "datasets", "nemo_run", "submitit", "rich", "jinja2", "huggingface_hub", "numpy",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent


def imported(arguments: list[str | Path], environment: dict[str, str]) -> set[str]:
    """Top-level packages that the command imports. (Those of its child: tests/launch/cli/test_imports.py.)"""
    shown = child([*OVERNIGHT, *arguments], environment={**environment, "PYTHONPROFILEIMPORTTIME": "1"}).output
    lines = [line for line in shown.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", nargs="?", type=Path, help="default: pipelines/pt_pt.yaml, and the toy chain")
    given = parser.parse_args().pipeline
    with toychain.scratch() as directory:
        environment = {
            **os.environ,
            "OVERNIGHT_WORKSPACE": str(directory / "workspace"),
            "XDG_STATE_HOME": str(directory / "state"),
        }
        pipelines = {"toy chain": toychain.make(directory / "toy")}
        pt_pt = given or ROOT / "pipelines" / "pt_pt.yaml"
        if pt_pt.exists():
            pipelines[pt_pt.name] = pt_pt
        sides = {BARE: [sys.executable, "-c", "pass"], "--help": [*OVERNIGHT, "--help"]}
        for name, path in pipelines.items():
            sides[f"plan {name}"] = [*OVERNIGHT, "plan", path, "--cluster", "devcluster"]
        first = [*OVERNIGHT, "plan", pt_pt, "--cluster", "devcluster", "--workspace", directory / "first"]
        print("CPU seconds, all processes: median (lowest to highest)")

        def first_plan() -> Cost:
            shutil.rmtree(directory / "first", ignore_errors=True)
            return child(first, environment=environment)

        measured = {name: partial(child, command, environment=environment) for name, command in sides.items()}
        costs = alternate({**measured, "the first plan in a workspace": first_plan})
        bare = Spread.of([cost.cpu for cost in costs[BARE]]).median
        for name, found in costs.items():
            cpu = Spread.of([cost.cpu for cost in found])
            if name == "--help":
                report(name, cpu, f"{HELP_TARGET} s", cpu.median < HELP_TARGET)
            else:
                report(name, cpu)
            if name.startswith("plan"):
                ratio = cpu.median / bare
                report(f"{name} / {BARE}", f"{ratio:.1f}", f"{PLAN_RATIO}", ratio <= PLAN_RATIO)
        for name, command in sides.items():
            if name.startswith(("plan", "--help")):
                found = imported(command[len(OVERNIGHT) :], environment)
                heavy = sorted(found & set(HEAVY))
                report(f"heavy packages imported by {name}", ", ".join(heavy) or "none", "none", not heavy)


if __name__ == "__main__":
    main()
