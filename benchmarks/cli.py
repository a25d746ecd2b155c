"""How light the command is: CPU of ``overnight --help`` and ``overnight plan`` (all processes), and what they import.

``plan`` starts one child for each interpreter of the profile, to ask for versions; its time is counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import toychain
from measure import OVERNIGHT, Spread, alternate, child, report

HELP_TARGET = 0.25
PLAN_TARGET = 0.6
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
        sides = {"python -c pass": [sys.executable, "-c", "pass"], "--help": [*OVERNIGHT, "--help"]}
        for name, path in pipelines.items():
            sides[f"plan {name}"] = [*OVERNIGHT, "plan", path, "--cluster", "devcluster"]
        print("CPU seconds, all processes: median (lowest to highest)")
        costs = alternate({name: partial(child, command, environment=environment) for name, command in sides.items()})
        for name, found in costs.items():
            cpu = Spread.of([cost.cpu for cost in found])
            target = HELP_TARGET if name == "--help" else PLAN_TARGET if name.startswith("plan") else None
            report(name, cpu, f"{target} s" if target else "", cpu.median < target if target else None)
        for name, command in sides.items():
            if name.startswith(("plan", "--help")):
                found = imported(command[len(OVERNIGHT) :], environment)
                heavy = sorted(found & set(HEAVY))
                report(f"heavy packages imported by {name}", ", ".join(heavy) or "none", "none", not heavy)


if __name__ == "__main__":
    main()
