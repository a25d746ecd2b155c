"""The batch script of a job, as it is rendered, run by bash with fake commands in PATH: no Slurm and no Python inside it.

The fake interpreter answers ``prologue`` and ``finish`` as the test says and notes each call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import symptoms
from jobs.core.paths import Workspace
from jobs.core.symptoms import Symptom
from launch.config.fields import Resources
from launch.config.profile_file import read_profile
from launch.render import request, templates
from launch.render.executors import carrier
from launch.render.request import JobRequest
from launch.runs.rundir import Run
from launch.submit import array

NODE: dict[str, Any] = {
    "modules": (), "enter": (), "variables": (), "prefix": "", "secrets": None, "scratch": None, "launcher": "python",
    "nodes": 1, "processes": 1, "ray_seconds": 1, "stage_python": None,
}  # fmt: skip

PYTHON = """
case $2 in
  prologue) exit "${PROLOGUE:-0}" ;;
  finish) [ "$4" -eq 0 ] && echo "${DECISION:-done}" || echo "${DECISION:-fail}" ;;
  work | shard) exit "${WORK:-0}" ;;
esac
exit 0
"""

COMMANDS = {
    "srun": 'for last; do :; done; "$last"',
    "scontrol": """
case "$1 $2" in
  "show hostnames") echo node1 ;;
  "show job") echo "JobId=7 JobState=${STATE:-RUNNING} Reason=None Restarts=0 x" ;;
  requeue*) echo "${REQUEUE:-}" >&2; [ -z "${REQUEUE:-}" ] ;;
esac
""",
    "squeue": 'case "$*" in *%x*) echo "(null)" ;; *) echo "${LEFT:-1-02:03:04}" ;; esac',
    "sinfo": "printf 'node1\\nnode2\\n'",
}


@dataclass(frozen=True)
class Ran:
    """How the job ended, and all calls of the fake commands in their order."""

    code: int
    calls: list[str]
    log: str
    early: str
    symptom: Symptom | None

    def count(self, call: str) -> int:
        return sum(one.startswith(call) for one in self.calls)


def write_node(path: Path, **given: Any) -> None:
    """``node.sh`` at ``path``: without container, modules, secrets and a scratch directory, but for what is given."""
    path.write_text(templates.template("node.sh.j2", **{**NODE, "environment": [], "node": path, **given}))
    path.chmod(0o755)


class Batch:
    """One job in a directory of its own; change its files before ``run``."""

    def __init__(
        self,
        directory: Path,
        *,
        executor: str = "submitit",
        starts: tuple[str, ...] = ("srun",),
        host: Mapping[str, Any] | None = None,
        **asked: Any,
    ) -> None:
        self.stage, self.bin = directory / "stage", directory / "bin"
        node = {key: asked.pop(key) for key in NODE if key in asked}
        for each in (self.stage / "logs", self.bin):
            each.mkdir(parents=True)
        self.python = self.bin / "interpreter"
        for name, text in {**COMMANDS, "interpreter": PYTHON}.items():
            self.command(name, text)
        common = {
            "stage": "cpt", "stage_dir": self.stage, "boot": "boot.py", "spec": "spec.json", "environment": [],
        }  # fmt: skip
        values = {"core_python": self.python, "watch_seconds": 1, "seal": self.stage / "seal.json", "run": "abcde"}
        self.request = JobRequest(
            "on-abcde-cpt-t", self.stage, Resources(time="5"), requeue=True, launcher=starts, **asked
        )
        scripts = self.request.scripts
        scripts.host.write_text(templates.template("host.sh.j2", **common, **values, **(host or {})))
        write_node(scripts.node, **{**common, "stage_python": self.python, **node})
        self.script = request.write_script(self.request, carrier(executor).render(self.request))

    @classmethod
    def of_array(cls, directory: Path, executor: str = "submitit", more: str = "") -> Batch:
        """A task of an array; ``more``: lines of its profile."""
        found = cls(directory, executor=executor)
        profile = directory / "lab.yaml"
        environments = f"{{data: {{python: {found.python}}}}}"
        limits = 'resources: {default: {time: "5"}}'
        profile.write_text(f"executor: slurm\nenvironments: {environments}\n{limits}\n{more}")
        run = Run(Workspace(directory / "w"), "abcdef")
        found.request = array.write(run, "read-0", "corpus", read_profile(profile).profile, 2, 2)
        found.stage = found.request.stage_dir
        found.script = request.write_script(found.request, carrier(executor).render(found.request))
        return found

    def command(self, name: str, text: str) -> None:
        """A fake command; its name and arguments are noted."""
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "${{0##*/}} $*" >>{self.bin.parent}/calls\n{text}\n')
        path.chmod(0o755)

    def run(self, timeout: float = 60, **environment: str) -> Ran:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OVERNIGHT_"))}
        given = {
            **kept, "PATH": f"{self.bin}:{kept['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1",
            "SLURMD_NODENAME": "node1", "SLURM_JOB_PARTITION": "batch", "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "0", **environment,
        }  # fmt: skip
        shell = subprocess.Popen(
            ["env", "--default-signal=HUP", "bash", str(self.script)],  # bash keeps what nohup ignores
            env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            early_text, _ = shell.communicate(timeout=timeout)
        finally:  # as Slurm does at the end of a job: what it left behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        calls = self.bin.parent / "calls"
        log = self.stage / "logs" / f"7_{environment.get('SLURM_RESTART_COUNT', '0')}.log"
        (self.stage / "logs").mkdir(exist_ok=True)
        early = self.stage / "logs" / "7.batch.log"
        early.write_text(early_text)
        return Ran(
            shell.returncode,
            calls.read_text().splitlines() if calls.exists() else [],
            log.read_text() if log.exists() else "",
            early_text,
            symptoms.search_log(log) or symptoms.search_log(early),
        )

    def commands(self) -> int:
        """How many commands its batch shell runs."""
        self.run_with_signal("TERM", 10**6)
        return int((self.bin.parent / "count").read_text())

    def run_with_signal(self, name: str, number: int) -> Ran:
        """``run``, with a signal to the batch shell before its command of that number; the lines about each connection of
        this machine are not counted, as they may be thousands."""
        directory = self.bin.parent
        before = directory / "before.sh"
        before.write_text(
            f"case $0 in */job.sh) unset BASH_ENV; set -T; before_count=0\n"
            f'trap \'case $BASHPID.$BASH_COMMAND in *address*) ;; "$$".*) echo "$((++before_count))" >{directory}/count;'
            f' [ "$before_count" -ne {number} ] || kill -{name} "$$" ;; esac\' DEBUG ;; esac\n'
        )
        return self.run(BASH_ENV=str(before))
