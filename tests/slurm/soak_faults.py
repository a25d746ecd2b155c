"""What the soak does to chains and to their cluster while they work.

A fault of the cluster (a node, the controller, the accounting) hits every chain that is there: that is meant. One at a
time of those, since each restores what it broke.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from launch.base.errors import OvernightError
from tests.support.chains import Chain, ended
from tests.support.slurm import Slurm

CGROUPS = Path("/sys/fs/cgroup/memory")
"""Where memory limits are enforced; without it none is, and no job of the soak runs out of memory."""


@dataclass
class Site:
    """The cluster under all chains, and what has been done to it."""

    slurm: Slurm
    has_cgroups: bool
    injected: Counter[str] = field(default_factory=Counter)
    cuts: dict[str, list[tuple[float, str, int]]] = field(default_factory=dict)
    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def scontrol(self, *arguments: str) -> None:
        """Ask for something that may be refused, or may find nobody."""
        self.slurm.run(["scontrol", *arguments], check=False, timeout=60)


Fault = Callable[[Site, Chain, random.Random], None]


def alive(chain: Chain, *states: str) -> list[str]:
    """Ids of the chain's jobs that have not ended (in one of ``states`` where some are given); none where nobody
    answers."""
    try:
        rows = [job.row for job in chain.jobs() if not job.row.state.is_final]
    except OvernightError:
        return []
    return [row.job_id for row in rows if not states or row.state in states]


def _some(chain: Chain, dice: random.Random, *states: str) -> str | None:
    found = alive(chain, *states)
    return dice.choice(found) if found else None


def _runs(chain: Chain) -> list[str]:
    return [run for run in chain.runs() if chain.has_plan(run)]


# Faults of people and of the submission


def killed_submit(site: Site, chain: Chain, dice: random.Random) -> None:
    """kill -9 of ``overnight submit`` somewhere on its way."""
    before = len(chain.runs())
    _killed(chain.start("submit"), lambda: len(chain.runs()) > before, dice)


def killed_resume(site: Site, chain: Chain, dice: random.Random) -> None:
    """kill -9 of ``overnight resume`` somewhere on its way."""
    for run in _runs(chain)[-1:]:
        lock = chain.workspace.run(run).lock
        _killed(chain.start("resume", run), lock.exists, dice)


def _killed(process: subprocess.Popen[str], has_begun: Callable[[], bool], dice: random.Random) -> None:
    """Not while it is still being loaded: that would break nothing."""
    end = time.monotonic() + 300
    while process.poll() is None and not has_begun() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(dice.uniform(0.0, 1.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def two_resumes(site: Site, chain: Chain, dice: random.Random) -> None:
    """Two login nodes resume the same run at once."""
    for run in _runs(chain)[-1:]:
        for process in [chain.start("resume", run) for _ in range(2)]:
            ended(process, code=None)


def submit_limit(site: Site, chain: Chain, dice: random.Random) -> None:
    """The user may have fewer jobs in the queue than the chain has stages."""
    user = pwd.getpwuid(os.geteuid()).pw_name

    def limit(value: int) -> None:
        change = f"MaxSubmitJobsPerUser={value}"
        site.slurm.run(["sacctmgr", "-i", "modify", "qos", "normal", "set", change], check=False)
        site.slurm.run(["sacctmgr", "-i", "modify", "user", user, "set", f"MaxSubmitJobs={value}"], check=False)

    with site.one_at_a_time:
        limit(dice.randint(1, 3))
        try:
            chain.overnight("submit", code=None)
        finally:
            limit(-1)


def lost_by_the_controller(site: Site, chain: Chain, dice: random.Random) -> None:
    """The controller is killed right after it has accepted the jobs: it has not written them down."""
    with site.one_at_a_time:
        chain.overnight("submit", code=None)
        time.sleep(dice.uniform(0.0, 1.5))
        _restart(site, "slurmctld", dice.uniform(0.0, 2.0))


def cancelled_job(site: Site, chain: Chain, dice: random.Random) -> None:
    """Somebody cancels one job behind our back."""
    job = _some(chain, dice)
    if job:
        site.slurm.run(["scancel", job], check=False)


def cancelled_run(site: Site, chain: Chain, dice: random.Random) -> None:
    """``overnight cancel``."""
    for run in _runs(chain)[-1:]:
        chain.overnight("cancel", run, code=None)


def never_satisfied(site: Site, chain: Chain, dice: random.Random) -> None:
    """The first stage at work is cancelled: what is below can never start, and stays where the profile says so."""
    jobs = alive(chain, "RUNNING") or alive(chain)
    if jobs:
        site.slurm.run(["scancel", jobs[0]], check=False)


def second_copy(site: Site, chain: Chain, dice: random.Random) -> None:
    """Slurm accepted a submission twice."""
    scripts = sorted(chain.workspace.runs.glob("*/stages/*/attempts/*/job.sh"))
    if scripts:
        site.slurm.run(["sbatch", "-p", "preempt", dice.choice(scripts)], check=False)


# Faults of Slurm and of the machines


def requeued(site: Site, chain: Chain, dice: random.Random) -> None:
    """An administrator requeues a job."""
    job = _some(chain, dice, "RUNNING") or _some(chain, dice)
    if job:
        site.scontrol("requeue", job)


def preempted(site: Site, chain: Chain, dice: random.Random) -> None:
    """A job of another partition takes the nodes, at once."""
    _preempt(site, dice)


def preempted_with_grace(site: Site, chain: Chain, dice: random.Random) -> None:
    """Likewise, and the job is told before."""
    with site.one_at_a_time:
        site.scontrol("update", "partitionname=preempt", "gracetime=8")
    _preempt(site, dice)
    with site.one_at_a_time:
        site.scontrol("update", "partitionname=preempt", "gracetime=0")


def _preempt(site: Site, dice: random.Random) -> None:
    which = ["--nodes=4"] if dice.random() < 0.5 else ["--nodes=1", f"--nodelist=node{dice.randint(1, 4)}"]
    log = site.slurm.directory / "log" / "other.log"
    argv = [
        "sbatch",
        "--parsable",
        "-p",
        "batch",
        "--exclusive",
        "--time=1",
        f"--output={log}",
        *which,
        "--wrap=sleep 2",
    ]
    done = site.slurm.run(argv, check=False)
    job = done.stdout.strip()
    end = time.monotonic() + 60
    while job and time.monotonic() < end:
        shown = site.slurm.run(["squeue", "-h", "-j", job, "-o", "%T"], check=False)
        if not shown.stdout.strip() and "contact" not in shown.stderr:
            return
        time.sleep(1.0)
    if job:
        site.slurm.run(["scancel", job], check=False)


def time_limit(site: Site, chain: Chain, dice: random.Random) -> None:
    """The end of a job's allocation comes near: with time for a save, or without."""
    job = _some(chain, dice, "RUNNING")
    if job:
        site.scontrol("update", f"jobid={job}", f"endtime=now+{dice.choice((2, 15, 25))}")


def power_cut(site: Site, chain: Chain, dice: random.Random) -> None:
    """A node loses its power and comes back."""
    node = f"node{dice.randint(1, 4)}"
    with site.one_at_a_time:
        site.slurm.cluster.kill(node)
        site.scontrol("update", f"nodename={node}", "state=down", "reason=soak")
        time.sleep(dice.uniform(0.2, 2.0))
        site.slurm.cluster.start(node)


def presumed_dead(site: Site, chain: Chain, dice: random.Random) -> None:
    """A node is not heard of and taken for dead; its job works on there, while Slurm starts it elsewhere."""
    node = f"node{dice.randint(1, 4)}"
    with site.one_at_a_time, frozen(site, node):
        site.scontrol("update", f"nodename={node}", "state=down", "reason=soak")
        time.sleep(dice.uniform(6.0, 12.0))
    back(site, node)


def back(site: Site, node: str) -> None:
    """Have a node that was set down in use again. Once its daemon is heard of it may be so by itself, and Slurm then calls
    the request invalid. The controller may be away: another chain kills it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        shown = site.slurm.run(["scontrol", "show", "node", node, "-o"], check=False)
        if shown.returncode == 0 and "DOWN" not in shown.stdout:
            return
        site.scontrol("update", f"nodename={node}", "state=resume")
        time.sleep(0.5)


@contextmanager
def frozen(site: Site, node: str) -> Iterator[None]:
    argv = b"\0".join(part.encode() for part in ("slurmd", "-D", "-N", node, "-f", str(site.slurm.slurm_conf))) + b"\0"
    found = [int(entry.parent.name) for entry in Path("/proc").glob("[0-9]*/cmdline") if _is(entry, argv)]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)


def _is(entry: Path, argv: bytes) -> bool:
    try:
        return entry.read_bytes() == argv
    except OSError:
        return False


def controller_killed(site: Site, chain: Chain, dice: random.Random) -> None:
    """The controller dies and comes back a while later."""
    with site.one_at_a_time:
        _restart(site, "slurmctld", dice.uniform(0.5, 6.0))


def accounting_down(site: Site, chain: Chain, dice: random.Random) -> None:
    """The accounting database does not answer for a while."""
    with site.one_at_a_time:
        _restart(site, "slurmdbd", dice.uniform(2.0, 8.0))


def _restart(site: Site, name: str, after: float) -> None:
    site.slurm.cluster.kill(name)
    time.sleep(after)
    site.slurm.cluster.start(name)


def cut_save(site: Site, chain: Chain, dice: random.Random) -> None:
    """The file system loses the end of the newest save, and the job is started again."""
    seals = sorted(chain.workspace.store.glob("*/saves/checkpoint-*/seal.json"), key=lambda path: path.parent.name)
    if not seals:
        return
    directory = max(seals, key=lambda path: int(path.parent.name.partition("-")[2])).parent
    entry, step = directory.parents[1].name, int(directory.name.partition("-")[2])
    site.cuts.setdefault(str(chain.directory), []).append((time.time(), entry, step))
    try:
        size = (directory / "state.json").stat().st_size
        os.truncate(directory / "state.json", size // 2)
    except OSError:
        return  # its stage has finished
    requeued(site, chain, dice)


STARTS: tuple[Fault, ...] = (killed_submit, submit_limit, lost_by_the_controller)
"""Instead of a submission that goes well."""

FAULTS: tuple[Fault, ...] = (
    killed_resume, two_resumes, cancelled_job, cancelled_run, never_satisfied, second_copy, requeued, preempted,
    preempted_with_grace, time_limit, power_cut, presumed_dead, controller_killed, accounting_down, cut_save,
)  # fmt: skip

MISHAPS = ("greed", "kill", "gpu", "nccl", "hang")
"""What a stage does to itself in its first start."""
