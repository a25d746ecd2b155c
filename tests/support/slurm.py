"""What tests on the real Slurm need: a handle on the cluster, jobs, and waiting with a reason when it fails."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from launch.slurm.devcluster.cluster import DevCluster
from launch.slurm.devcluster.daemons import DAEMON_PATH, Process

#: States after which nothing comes, as far as a test cluster knows them.
FINAL = frozenset({"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"})

_FIELD = re.compile(r"(?:^|\s)([\w/:]+)=(\S*)")


class Slurm:
    """A running dev cluster as a test sees it."""

    def __init__(self, cluster: DevCluster, accounting: bool) -> None:
        self.cluster = cluster
        self.accounting = accounting
        self.directory = cluster.directory
        self.slurm_conf = cluster.directory / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, pointed at the cluster and free of scheduler left-overs."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**kept, "PATH": f"{kept.get('PATH', '')}:{DAEMON_PATH}", "SLURM_CONF": str(self.slurm_conf)}

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float = 60,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's environment; a failure shows what it printed."""
        done = subprocess.run(
            [str(part) for part in argv],
            env={**self.environment, **(environment or {})},
            cwd=cwd or self.directory,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sbatch(self, body: str, *options: str) -> str:
        """Submit a bash script of these lines and return its job id; its output is ``output(job_id)``."""
        script = self.directory / "log" / f"job-{time.monotonic_ns()}.sh"
        script.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        log = self.directory / "log" / "job-%j.log"
        done = self.run(["sbatch", "--parsable", f"--output={log}", "--open-mode=append", *options, script])
        return done.stdout.strip().partition(";")[0]

    def output(self, job_id: str) -> str:
        """What a job of ``sbatch`` has printed so far, over all its restarts."""
        path = self.directory / "log" / f"job-{job_id}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def job(self, job_id: str) -> dict[str, str]:
        """Fields of ``scontrol show job``: JobState, Reason, Restarts, ExitCode, NodeList, ..."""
        shown = self.run(["scontrol", "--oneliner", "show", "job", job_id]).stdout
        return dict(_FIELD.findall(shown))

    def wait_for_state(self, job_id: str, states: str | Collection[str], timeout: float = 120) -> dict[str, str]:
        """Wait until the job is in one of ``states``; returns its fields.

        Raises:
            AssertionError: it was not in time, or it ended in a state that was not asked for.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        end = time.monotonic() + timeout
        while True:
            fields = self.job(job_id)
            state = fields["JobState"]
            if state in wanted:
                return fields
            if state in FINAL or time.monotonic() >= end:
                raise AssertionError(
                    f"job {job_id} is {state} (Reason={fields.get('Reason')}), not {' or '.join(sorted(wanted))}\n"
                    f"{fields}\noutput:\n{self.output(job_id)[-2000:]}"
                )
            time.sleep(0.1)

    def requeue(self, job_id: str, timeout: float = 120) -> None:
        """Requeue a job; asked again where the controller is too busy for an answer, which may have come through."""
        end = time.monotonic() + timeout
        while True:
            done = self.run(["scontrol", "requeue", job_id], check=False)
            if done.returncode == 0 or "pending execution" in done.stderr + done.stdout:
                return
            assert time.monotonic() < end, f"{done.stdout}{done.stderr}"
            time.sleep(0.5)

    def jobs(self) -> list[str]:
        """Ids of the jobs that have not ended."""
        return self.run(["squeue", "--noheader", "--format=%A"]).stdout.split()

    def scancel_all(self, timeout: float = 120) -> None:
        """Cancel every job and wait until none is left, also none that still completes."""
        end = time.monotonic() + timeout
        while jobs := self.jobs():
            done = self.run(["scancel", *jobs], check=False)  # a controller that has just come back may be too busy
            if time.monotonic() >= end:
                raise AssertionError(f"jobs still there {timeout} s after scancel: {jobs}\n{done.stderr}")
            time.sleep(0.1)


def traces(directory: Path) -> list[str]:
    """Living processes that have anything to do with a directory: command line, environment, open files."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or Process.of(int(entry.name)) is None:
            continue
        try:
            text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            links = [os.readlink(link) for link in (entry / "cwd", *(entry / "fd").iterdir())]
        except OSError:  # ended meanwhile, or another user's
            continue
        if str(directory).encode() in text or any(link.startswith(str(directory)) for link in links):
            found.append(f"{entry.name}: {text.partition(bytes(2))[0].decode(errors='replace')}")
    return found
