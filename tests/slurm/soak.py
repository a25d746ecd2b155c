"""Random faults over many small chains on a throw-away Slurm: ``make soak``, or ``python -m tests.slurm.soak --seed 7``.

Each chain has a seed that decides its faults and when they strike; a failing one is replayed by ``--seed N --chains 1``.
After the faults ``resume`` is called until every stage is sealed. Checked then: every stage sealed once and sound, made
from its parents' seals, no two jobs at work on a stage at one time, no step lost beyond the last save, no job left, every
job announced in a journal.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jobs.core import seal
from launch.devcluster.cluster import DevCluster
from tests.slurm.chains import Chain, ended
from tests.slurm.helpers import Slurm

STAGES = ("corpus", "pairs", "cpt", "sft")
SLOW = {"steps": 20, "save_every": 4, "nodes": 1, "options": {"step_seconds": 0.15}}
PATIENCE = 6
"""Calls of resume after which a chain must be done."""


def kill_submission(chain: Chain, dice: random.Random) -> None:
    """kill -9 of ``overnight submit`` somewhere on its way."""
    process = chain.start("submit")
    time.sleep(dice.uniform(0.3, 3.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _alive(chain: Chain, dice: random.Random) -> str | None:
    jobs = [job.row for job in chain.jobs() if not job.row.state.is_final]
    return dice.choice(jobs).job_id if jobs else None


def requeue(chain: Chain, dice: random.Random) -> None:
    """Somebody requeues a job, as a preemption does."""
    job = _alive(chain, dice)
    if job:
        chain.slurm.run(["scontrol", "requeue", job], check=False)


def cancel(chain: Chain, dice: random.Random) -> None:
    """Somebody cancels one job behind our back."""
    job = _alive(chain, dice)
    if job:
        chain.slurm.run(["scancel", job], check=False)


def second_copy(chain: Chain, dice: random.Random) -> None:
    """Slurm accepted a submission twice."""
    scripts = sorted(chain.workspace.runs.glob("*/stages/*/attempts/*/job.sh"))
    if scripts:
        chain.slurm.run(["sbatch", dice.choice(scripts)], check=False)


def lose_a_node(chain: Chain, dice: random.Random) -> None:
    """A node loses its power and comes back."""
    node = f"node{dice.randint(1, 4)}"
    chain.slurm.cluster.kill(node)
    chain.slurm.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=soak"], check=False)
    time.sleep(dice.uniform(0.2, 2.0))
    chain.slurm.cluster.start(node)


def resume_twice(chain: Chain, dice: random.Random) -> None:
    """Two login nodes resume the same run at once."""
    runs = [run for run in chain.runs() if chain.has_plan(run)]
    if runs:
        for process in [chain.start("resume", runs[-1]) for _ in range(2)]:
            ended(process, code=None)


FAULTS: tuple[Callable[[Chain, random.Random], None], ...] = (
    kill_submission, requeue, cancel, second_copy, lose_a_node, resume_twice,
)  # fmt: skip


def check(chain: Chain, run: str) -> None:
    """The invariants.

    Raises:
        AssertionError: with the stage's story.
    """
    for stage in chain.plan(run).stages:
        why = f"stage {stage.name} of run {run}\n{chain.story(run, stage.name)}"
        store = chain.store(run, stage.name)
        assert store.seal.exists(), f"not sealed: {why}"
        sealed = seal.verify(store.output, store.seal)
        for role, parent in stage.inputs.items():
            above = chain.workspace.entry(parent.kind, parent.fingerprint)
            assert sealed.parents[role] == seal.digest_of(above.seal), f"made from another {role}: {why}"
        assert len(chain.events(stage.name, "sealed")) == 1, f"sealed more than once: {why}"
        saves = {line["step"] for line in chain.events(stage.name, "saved")}
        for line in chain.events(stage.name, "resumed"):
            assert line["step"] in saves, f"resumed from a step that was not saved: {why}"
    chain.assert_queue_explained()


def one_chain(slurm: Slurm, directory: Path, seed: int, injected: Counter[str]) -> None:
    """Make a chain, let faults strike, resume it to its end, check it."""
    dice = random.Random(seed)
    chain = Chain(slurm, directory, STAGES, seed=seed, settings={"cpt": SLOW, "sft": {"nodes": 1}})
    chain.fetch()
    if dice.random() < 0.5:
        kill_submission(chain, dice)
        injected["kill_submission"] += 1
    else:
        chain.submit()
    for fault in dice.sample(FAULTS[1:], k=dice.randint(1, 3)):
        time.sleep(dice.uniform(0.5, 4.0))
        fault(chain, dice)
        injected[fault.__name__] += 1
    planned = [run for run in chain.runs() if chain.has_plan(run)]
    run = planned[-1] if planned else chain.submit()
    for _ in range(PATIENCE):
        chain.wait(timeout=180)
        if all(chain.store(run, name).seal.exists() for name in chain.plan_names(run)):
            break
        chain.resume(run)
    check(chain, run)


def main() -> int:
    """Soak for a time or a number of chains; the exit code counts the violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--chains", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="overnight-soak-"))
    cluster = DevCluster(root / "slurm")
    injected: Counter[str] = Counter()
    failed: list[int] = []
    count = 0
    end = time.monotonic() + 60 * args.minutes
    try:
        cluster.up(with_accounting=False)
        while count < args.chains and time.monotonic() < end:
            seed = args.seed + count
            try:
                one_chain(Slurm(cluster, False), root / f"chain-{seed}", seed, injected)
                shutil.rmtree(root / f"chain-{seed}")
            except AssertionError as error:
                failed.append(seed)
                print(f"seed {seed}: {error}\nreplay: python -m tests.slurm.soak --seed {seed} --chains 1", flush=True)
            count += 1
            faults = ", ".join(f"{name} {number}" for name, number in sorted(injected.items()))
            print(f"{count} chains, {len(failed)} violations; faults: {faults}", flush=True)
    finally:
        cluster.down()
        if not failed:
            shutil.rmtree(root, ignore_errors=True)
    print(f"chains {count}, faults {sum(injected.values())}, violations {len(failed)}" + (f": seeds {failed}" if failed else ""))
    return min(len(failed), 125)


if __name__ == "__main__":
    sys.exit(main())
