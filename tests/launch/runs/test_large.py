"""Runs of many stages in stores of many entries: files are opened once a stage, whatever else lies in the store.

Opens and listings of directories are counted, not seconds. In a store of 100,000 entries and a run of 1,000 stages
(``benchmarks/large.py``) what grows with the square, or with the store, takes minutes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, seal
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome
from jobs.lifecycle import space
from launch.runs import gc, rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.status import assess, why
from launch.status.cluster import Queue
from launch.submit import repair
from launch.submit.submitter import Action, Submitter
from tests.support import made_runs as made

FEW, MANY, ENTRIES = 10, 30, 200

_counted: Counter[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _counted is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
        _counted[Path(arguments[0]).name] += 1


sys.addaudithook(_watch)


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    """Files opened and directories listed since it was cleared, by their names."""
    global _counted
    _counted = Counter()
    yield _counted
    _counted = None


class Cluster:
    """Says of each job what the test has made it."""

    def __init__(self, run: Run, state: JobState | None) -> None:
        names = [] if state is None else [stage.name for stage in run.plan().stages]
        self._rows = [made.row(run, name, str(1000 + number), state) for number, name in enumerate(names) if state]

    def squeue(self) -> list[Any]:
        return self._rows

    def sacct(self, since: float) -> list[Any]:
        return []


def status(run: Run, cluster: Any) -> None:
    assert len(assess.look(run, run.plan(), Queue.of(cluster.squeue()), cluster.sacct).stages) >= FEW


def explain(run: Run, cluster: Any) -> None:
    found = assess.look(run, run.plan(), Queue.of(cluster.squeue()), cluster.sacct)
    assert len(why.explain(run, run.plan(), run.profile(), found)) >= FEW


def doctor(run: Run, cluster: Any) -> None:
    repair.examine(run, run.plan(), cluster)


def resume(run: Run, cluster: Any) -> None:
    with rundir.locked(run):
        steps = Submitter(run, run.plan(), run.profile(), cluster).advance()
    assert {step.action for step in steps} == {Action.ADOPTED}


def collect(run: Run, cluster: Any) -> None:
    assert gc.collect(run.workspace, 30, dry_run=False) == ([], gc.needed(run.workspace))


def many(directory: Path, count: int, failed: bool) -> Run:
    """A run of ``count`` stages, each submitted; all wait in the queue or have failed."""
    names = [f"stage-{number}" for number in range(count)]
    run = made.make(directory, *(made.stage(name) for name in names))
    files.write_json(run.paths.emitted, {})
    run.journal.write(Event.INTENT, stage=names[0], names=["on-x"])  # damaged: without its attempt
    for number, name in enumerate(names):
        made.submitted(run, name, str(1000 + number))
        if failed:
            made.started(run, name, str(1000 + number))
            failure = (FailureClass.GPU_MEMORY, FailureClass.BAD_CONFIGURATION)[number % 2]
            evidence = "srun: error: Invalid --mpi" if number % 2 else "out of memory"
            made.said(run, name, str(1000 + number), Outcome.FAIL, failure, evidence, attempt="aaaaaa")
    return run


def others(run: Run) -> None:
    """Further sealed entries in its store."""
    for number in range(ENTRIES):
        entry = run.workspace.entry("checkpoint", f"{number:016x}")
        entry.output.mkdir(parents=True)
        (entry.output / "model").write_text("x")
        kind = seal.SealKind.CHECKPOINT
        seal.seal_directory(entry.output, entry.seal, kind=kind, format="toy", fingerprint=f"{number:016x}")


OF_FAILED = [status, explain, doctor, collect]
"""Not ``resume``, which would submit them."""


@pytest.mark.parametrize(
    ("act", "failed"), [(act, False) for act in (*OF_FAILED, resume)] + [(act, True) for act in OF_FAILED]
)
def test_what_is_opened_grows_with_the_stages_and_not_with_the_store(
    tmp_path: Path, opened: Counter[str], act: Callable[[Run, Any], None], failed: bool
) -> None:
    counts = {}
    for count in (FEW, MANY):
        run = many(tmp_path / f"w{count}", count, failed)
        cluster = Cluster(run, None if failed else JobState.PENDING)
        opened.clear()
        act(run, cluster)
        counts[count] = Counter(opened)
    assert counts[MANY].total() * FEW <= counts[FEW].total() * MANY + 10 * MANY, counts
    shared = {name: counts[MANY][name] for name in ("plan.json", "profile.yaml", "emitted.json")}
    assert max(shared.values()) <= 3, shared
    if act is not resume:  # which writes an entry for each stage
        assert counts[MANY]["journal.jsonl"] <= 3 + (MANY if failed and act in (explain, doctor) else 0)
    others(run)
    opened.clear()
    act(run, cluster)
    more = opened.total() - counts[MANY].total()
    assert more <= (0 if act is not collect else 10), (opened - counts[MANY], "the store's other entries were opened")


def test_a_quota_is_summed_without_a_look_at_sealed_entries(tmp_path: Path, opened: Counter[str]) -> None:
    run = many(tmp_path / "w", FEW, failed=False)
    others(run)
    wanted = space.used_bytes(run.workspace.store)
    assert wanted == ENTRIES
    opened.clear()
    assert space.used_bytes(run.workspace.store) == wanted
    assert opened["seal.json"] == 0
    assert opened.total() < 3 * FEW + 20
