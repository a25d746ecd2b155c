"""Random faults over many small chains on a throw-away Slurm: ``make soak``, or ``python -m tests.slurm.soak --seed 7``.

Each chain has a seed that decides its shape, its faults and when they strike. Several chains share the cluster, and the
faults of one that hit the cluster hit the others, too. A failing seed is tried again alone by ``--seed N --chains 1``
(the clock of a real Slurm is its own, so that may pass). After the faults ``resume`` is called until every stage is
sealed, and then the invariants of ``soak_checks`` are checked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from jobs.core import files
from launch.base.errors import OvernightError
from launch.slurm.devcluster import config
from launch.slurm.devcluster.cluster import DevCluster
from launch.slurm.reasons import NEVER_SATISFIED
from tests.slurm.soak_checks import check
from tests.slurm.soak_faults import CGROUPS, FAULTS, MISHAPS, STARTS, Site, alive
from tests.support.chains import Chain
from tests.support.slurm import Slurm

STAGES = ("corpus", "pairs", "cpt", "sft")
SLOW = {"steps": 20, "save_every": 4, "nodes": 1, "options": {"step_seconds": 0.15}}
PATIENCE = 10
"""Calls of resume after which a chain must be done."""

CGROUP_LINES = ("ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup")
CGROUP_CONF = "ConstrainRAMSpace=yes\n"


@contextmanager
def cluster_of(directory: Path, accounting: bool = True) -> Iterator[Site]:
    """A cluster with accounting, and with memory limits where this machine lets us set them."""
    can_limit = os.geteuid() == 0 and os.access(CGROUPS, os.W_OK)
    cluster = DevCluster(directory)
    rendered = config.rendered
    with_limits = lambda settings: {**rendered(settings), "cgroup.conf": CGROUP_CONF}  # noqa: E731
    try:
        if can_limit:
            with mock.patch.object(config, "rendered", with_limits):
                cluster.up(with_accounting=accounting, shape={"lines": CGROUP_LINES})
        else:
            cluster.up(with_accounting=accounting)
        yield Site(Slurm(cluster, accounting), can_limit)
    finally:
        cluster.down()


def shape_of(dice: random.Random, has_cgroups: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the stages, with a mishap perhaps, and keys of the profile."""
    settings: dict[str, Any] = {"cpt": dict(SLOW), "sft": {"nodes": 1}}
    mishap = dice.choice([name for name in MISHAPS if has_cgroups or name != "greed"])
    is_chain = dice.random() < 0.25
    # A mishap counts the starts of one job; a chain of jobs would meet it for ever, and one before the first save ends it.
    if not is_chain and dice.random() < 0.6:
        options = {"mishap": mishap, "mishap_step": dice.randint(3, 9), "mishap_starts": 1, "step_seconds": 0.1}
        settings["sft"] = {**SLOW, "steps": 10, "save_every": 2, "options": options}
    profile: dict[str, Any] = {
        "partition": "preempt",
        "resources": {"default": {"nodes": 1, "cpus": 2, "mem": "300M", "time": "0:30:00"}},
        # NeMo-Run takes seconds to load: now and then only, so that there are many chains.
        "executors": {"default": "submitit", "training": dice.choice(("submitit", "submitit", "submitit", "nemo_run"))},
        "kill_on_invalid_dep": dice.random() < 0.5,
        "stall_after": "0:05",
        "retries": {"out_of_memory": 2},
    }
    if is_chain:
        profile |= {"continuation": "chain", "links": 3}
    return settings, profile


def wait(chain: Chain, seconds: float = 900.0) -> None:
    """Wait until no job of the chain can do anything any more: all have ended, or wait for what will not come.

    Raises:
        AssertionError: they still do after that time.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            jobs = [job for job in chain.jobs() if not job.row.state.is_final]
        except OvernightError:
            jobs = None
        reasons = {job.row.reason for job in jobs} if jobs is not None else {"no answer"}
        if not reasons or (NEVER_SATISFIED in reasons and reasons <= {NEVER_SATISFIED, "Dependency"}):
            return  # what waits for a job that never starts does not start either
        # Slurm holds a job whose node went away while it was being started; its user lets it go.
        for job in jobs or ():
            if "held" in job.row.reason.lower() and job.row.reason != "JobHeldUser":
                chain.slurm.run(["scontrol", "release", job.row.job_id], check=False)
        if any("DRAIN" in reason for reason in reasons):
            _back_in_service(chain.slurm)
        if time.monotonic() >= end:
            raise AssertionError(
                "still alive after " + f"{seconds:.0f} s:\n" + "\n".join(map(str, jobs or ["no answer"]))
            )
        time.sleep(0.7)


def _back_in_service(slurm: Slurm) -> None:
    """As the site's people do: a controller that lost its memory gives an id again under which a node still works, and
    drains that node ("Duplicate jobid")."""
    shown = slurm.run(["sinfo", "-h", "-N", "-o", "%N %T"], check=False).stdout
    for node in {line.split()[0] for line in shown.splitlines() if "drain" in line}:
        slurm.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)


def one_chain(site: Site, directory: Path, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Make a chain, let faults strike, resume it to its end, check it; the faults by kind, and how starts ended.

    Raises:
        AssertionError: an invariant does not hold.
    """
    dice = random.Random(seed)
    injected: Counter[str] = Counter()
    settings, profile = shape_of(dice, site.has_cgroups)
    chain = Chain(site.slurm, directory, STAGES, settings=settings, profile=profile)
    chain.fetch()
    if dice.random() < 0.6:
        start = dice.choice(STARTS)
        injected[start.__name__] += 1
        start(site, chain, dice)
    else:
        chain.overnight("submit", code=None)
    for fault in dice.sample(FAULTS, k=dice.randint(2, 4)):
        _wait_for_work(chain, dice)
        injected[fault.__name__] += 1
        fault(site, chain, dice)
    _finish(site, chain)
    return injected, endings(chain)


def endings(chain: Chain) -> Counter[str]:
    """How the starts of a chain ended: their classes, by their own verdict or by that of the start after them."""
    found: Counter[str] = Counter()
    for run in chain.runs():
        for path in chain.workspace.run(run).stages.glob("*/events.jsonl"):
            lines = [line for line in files.read_json_lines(path) if line["event"] in ("verdict", "no_verdict")]
            found.update("done" if line["failure"] == "none" else str(line["failure"]) for line in lines)
    return found


def _wait_for_work(chain: Chain, dice: random.Random) -> None:
    """A fault has most to break while something runs; it strikes also where nothing does."""
    end = time.monotonic() + dice.choice((0.5, 8.0))
    while time.monotonic() < end and not alive(chain, "RUNNING"):
        time.sleep(0.3)
    time.sleep(dice.uniform(0.0, 3.0))


def _finish(site: Site, chain: Chain) -> None:
    for _ in range(PATIENCE):
        wait(chain)
        planned = [run for run in chain.runs() if chain.has_plan(run)]
        if not planned:
            chain.overnight("submit", code=None)
            continue
        if all(chain.store(planned[-1], name).seal.exists() for name in chain.plan_names(planned[-1])):
            break
        chain.overnight("resume", planned[-1], code=None)
    else:
        wait(chain)
    _settle(site)
    planned = [run for run in chain.runs() if chain.has_plan(run)]
    for run in planned:  # a run that was given up may have left copies behind
        chain.overnight("resume", run, code=None)
    wait(chain)
    check(chain, planned[-1], site.cuts.get(str(chain.directory), ()))


def _settle(site: Site) -> None:
    """Until no fault of another chain is under way: what follows asks Slurm, and takes no for an answer."""
    with site.one_at_a_time:
        pass


@dataclasses.dataclass
class Tally:
    """What has happened so far."""

    chains: int = 0
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    endings: Counter[str] = dataclasses.field(default_factory=Counter)
    failed: list[int] = dataclasses.field(default_factory=list)

    def line(self) -> str:
        return (
            f"chains {self.chains}, faults {self.faults.total()}, violations {len(self.failed)}; "
            f"faults: {_listed(self.faults)}; starts that ended: {_listed(self.endings)}"
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def main() -> int:
    """Soak for a time or a number of chains; the exit code counts the violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--chains", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=3, help="chains at one time")
    parser.add_argument("--report", type=Path, help="write the numbers there, as JSON")
    args = parser.parse_args()

    def end(
        number: int, frame: object
    ) -> None:  # with the chains that are at work, and not without stopping the cluster
        args.minutes = 0.0

    signal.signal(signal.SIGTERM, end)
    root = Path(tempfile.mkdtemp(prefix="overnight-soak-"))
    tally, lock = Tally(), threading.Lock()
    began = time.monotonic()
    seeds = iter(range(args.seed, args.seed + args.chains))

    def work(site: Site) -> None:
        while time.monotonic() < began + 60 * args.minutes:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            faults, ended, wrong = Counter[str](), Counter[str](), ""
            try:
                faults, ended = one_chain(site, root / f"chain-{seed}", seed)
                shutil.rmtree(root / f"chain-{seed}")
            except Exception:
                wrong = traceback.format_exc()
            with lock:
                tally.chains += 1
                tally.faults += faults
                tally.endings += ended
                if wrong:
                    tally.failed.append(seed)
                    print(
                        f"seed {seed}: {wrong}\nreplay: python -m tests.slurm.soak --seed {seed} --chains 1", flush=True
                    )
                print(f"{time.monotonic() - began:6.0f} s  {tally.line()}", flush=True)

    with cluster_of(root / "slurm") as site, ThreadPoolExecutor(args.workers) as pool:
        for done in [pool.submit(work, site) for _ in range(args.workers)]:
            done.result()
    if not tally.failed:
        shutil.rmtree(root, ignore_errors=True)
    if args.report:
        report = {**vars(tally), "first_seed": args.seed, "seconds": round(time.monotonic() - began)}
        args.report.write_text(json.dumps(report, indent=2) + "\n")
    print(tally.line() + (f"; seeds {tally.failed}, their files are in {root}" if tally.failed else ""))
    return min(len(tally.failed), 125)


if __name__ == "__main__":
    sys.exit(main())
