"""A real night: a chain with a worker that is killed, a preemption, a gate that is passed and one that is missed.

``python -m tests.support.night`` has it on a throw-away Slurm, counts its report again, and writes the transcript.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.core import progress
from launch.slurm.devcluster.cluster import DevCluster
from tests.support import recount
from tests.support.chains import Chain
from tests.support.slurm import Slurm
from tests.support.stages import make_model

TRANSCRIPT = Path(__file__).parents[2] / "docs" / "transcripts" / "night.txt"
STAGES = ("corpus", "prefs", "baseline", "cpt", "sft", "final")
PRICE = 2.5
STEPS = 600

_TASKS: dict[str, Any] = {"perplexity": {"data": "corpus"}, "preferences": {"data": "prefs", "limit": 40}}
_MEASURED: dict[str, Any] = {"backend": "trl", "tasks": _TASKS, "threads": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {"split": {"test": 0.2}},
    "prefs": {"split": {"test": 0.3}},
    "baseline": {**_MEASURED, "checkpoint": "base"},
    "cpt": {
        "backend": "toy", "steps": 40, "save_every": 8, "nodes": 2, "gpus_per_node": 2,
        "options": {"step_seconds": 0.2, "mishap": "kill", "mishap_step": 13, "mishap_starts": 1},
    },
    "sft": {
        "kind": "cpt", "backend": "trl", "checkpoint": "base", "data": "corpus", "batch_size": 4, "sequence_length": 64,
        "lr": 1e-3, "threads": 1, "save_every": 100, "steps": STEPS, "nodes": 1,
    },
    "final": {
        **_MEASURED, "checkpoint": "sft",
        "gate": {"perplexity": {"must": "fall"}, "accuracy": {"at_least": 0.99, "tier": "advisory"}},
    },
}  # fmt: skip
"""``cpt`` has make-believe GPUs, and its worker is killed at step 13, after the save of step 8; ``sft`` is a language
model on the CPU, which ``have`` preempts."""

_PRETENDED: dict[str, Any] = {"backend": "toy", "tasks": {"perplexity": {"data": "corpus"}}}
PRETENDED: dict[str, dict[str, Any]] = {
    **SETTINGS,
    "baseline": {**_PRETENDED, "checkpoint": "base"},
    "sft": {
        "kind": "cpt", "backend": "toy", "checkpoint": "base", "data": "corpus", "steps": 50, "nodes": 1,
        "options": {"step_seconds": 0.2},
    },
    "final": {**_PRETENDED, "checkpoint": "sft"},
}  # fmt: skip
"""The same without a language model, in a fraction of the time; it has no gates."""


def chain(slurm: Slurm, directory: Path, settings: Mapping[str, dict[str, Any]] = SETTINGS) -> Chain:
    """One of the two, with a price for its make-believe GPUs."""
    profile = {"partitions": {"batch": {"cost_per_gpu_hour": PRICE}}}
    made = Chain(slurm, directory, STAGES, settings=settings, profile=profile)
    if settings is SETTINGS:
        make_model(made.directory / "tiny")
    return made


def have(made: Chain) -> str:
    """Submit, and preempt ``sft`` in the middle; the run, when all of it has ended."""
    made.fetch()
    run = made.submit()
    wait_for_step(made, run, "sft", made.plan(run).stage("sft").settings["steps"] // 4)
    made.slurm.requeue(_job(made, "sft"))
    made.wait()
    return run


def wait_for_step(made: Chain, run: str, name: str, step: int) -> None:
    def reached() -> bool:
        reports = list(progress.read(made.stage(run, name).progress))
        return bool(reports) and reports[-1].step >= step

    made.wait_until(reached, f"step {step} of {name}\n{made.log(run, name)[-3000:]}", timeout=240)


def _job(made: Chain, name: str) -> str:
    return next(one.row.job_id for one in made.jobs() if one.stage == name and not one.row.state.is_final)


def shown(made: Chain, text: str) -> str:
    """Without names of this machine."""
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    for real, instead in (
        (str(made.directory), "/home/me/night"),
        (sys.executable, "/home/me/venv/bin/python"),
        (f"user {user}", "user me"),
        (socket.gethostname(), "login1"),
    ):
        text = text.replace(real, instead)
    return text


def transcript(made: Chain, run: str) -> str:
    """What somebody sees in the morning, and the count of it."""
    lines = ["# A night on `overnight cluster up`: the worker of cpt is killed, sft is preempted, one gate is passed and one,",
             "# which is only told, is missed. Written by: python -m tests.support.night", ""]  # fmt: skip
    for command in (["status", run], ["report", run], ["report", run, "--md"]):
        lines += [f"$ overnight {' '.join(command)}", *made.overnight(*command).stdout.splitlines(), ""]
    for name in ("cpt", "sft"):
        root = made.stage(run, name).root
        shown = ["events.jsonl", *sorted(path.name for path in root.glob("verdict-*.json"))]
        for file in shown:
            text = (root / file).read_text()
            lines += [f"$ cat runs/{run}/stages/{name}/{file}", *text.splitlines(), ""]
    lines += [f"$ python -m tests.support.recount runs/{run}"]
    found = recount.compare(made.workspace.run(run).root, recount.reported(made.workspace.root, run, made.environment))
    lines += [*recount.lines(found), ""]
    return re.sub(r"[ \t]+$", "", shown(made, "\n".join(lines)), flags=re.MULTILINE)


def main() -> None:
    """Write the transcript."""
    scratch = Path(tempfile.mkdtemp(prefix="overnight-"))
    cluster = DevCluster(scratch / "cluster")
    try:
        cluster.up(with_accounting=False)
        made = chain(Slurm(cluster, False), scratch / "work")
        TRANSCRIPT.write_text(transcript(made, have(made)))
        print(TRANSCRIPT)
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
