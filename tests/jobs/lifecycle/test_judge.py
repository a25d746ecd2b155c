"""How a start ended, and whether another may follow: from its result, its log, its saves and what Slurm says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import claim, files, verdict
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict
from jobs.lifecycle import judge, nodes
from jobs.lifecycle.start import EndedBy, Start, claim_of, event
from tests.file_faults.job import prepare, spec_of

FIRST = Start("100", 0, 0, "node1", ("node1",))


def spec_at(directory: Path, **more: Any) -> StageSpec:
    spec = replace(spec_of(directory), **more)
    prepare(spec)
    spec.stage_paths.logs.mkdir()
    return spec


def begin(spec: StageSpec, start: Start, step: int = 0) -> None:
    """What a start notes before its work."""
    event(spec.stage_paths, start, "start", attempt=spec.attempt, step=step, nodes=list(start.nodes))


def save(spec: StageSpec, step: int) -> None:
    spec.store_paths.save(step).mkdir(parents=True)
    files.write_json(spec.store_paths.save(step) / "seal.json", {})


@pytest.mark.parametrize(
    ("ended_by", "result", "code", "saved", "outcome", "failure", "says"),
    [
        (EndedBy.CANCELLED, {}, 143, 4, "fail", "cancelled", "saved up to step 4"),
        (EndedBy.REQUEUED, {}, 143, 0, "continue", "preempted", "requeued by Slurm"),
        (EndedBy.LIMIT, {}, 143, 4, "continue", "time_limit", "before the next step"),
        (EndedBy.LIMIT, {}, 143, 0, "fail", "no_progress", "no newer save than step 0"),
        (EndedBy.ITSELF, {}, 137, 0, "fail", "killed", "SIGKILL"),
        (EndedBy.ITSELF, {}, 1, 4, "continue", "killed", "saved up to step 4"),
        (EndedBy.ITSELF, {"outcome": "stopped", "step": 4, "reason": "soon"}, 0, 4, "continue", "time_limit", "soon"),
        (EndedBy.ITSELF, {"outcome": "failed", "failure": "hang", "evidence": "mute"}, 1, 0, "retry", "hang", "mute"),
        (EndedBy.ITSELF, {"outcome": "failed", "failure": "code_error"}, 1, 4, "fail", "code_error", ""),
    ],
)
def test_after_the_work(
    tmp_path: Path,
    ended_by: EndedBy,
    result: dict[str, Any],
    code: int,
    saved: int,
    outcome: str,
    failure: str,
    says: str,
) -> None:
    spec = spec_at(tmp_path)
    begin(spec, FIRST)
    if saved:
        save(spec, saved)
    found = judge.after(spec, FIRST, result, code, ended_by)
    assert (found.outcome.value, found.failure.value) == (outcome, failure)
    assert says in found.evidence
    assert found.nodes == (("node1",) if found.failure in judge.NODE_CLASSES else ())


def test_a_start_that_says_nothing_is_judged_by_its_log(tmp_path: Path) -> None:
    spec = spec_at(tmp_path)
    begin(spec, FIRST)
    log = spec.stage_paths.log(FIRST.job, FIRST.restart)
    log.write_text("step 1\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
    found = judge.after(spec, FIRST, {}, 1, EndedBy.ITSELF)
    assert (found.outcome, found.failure) == (Outcome.FAIL, FailureClass.GPU_MEMORY)
    assert found.source == f"{log}:2"


@pytest.mark.parametrize(("link", "outcome"), [(0, Outcome.CONTINUE), (1, Outcome.FAIL)])
def test_the_last_link_of_a_chain_has_no_successor(tmp_path: Path, link: int, outcome: Outcome) -> None:
    spec = spec_at(tmp_path, continuation="chain", links=2)
    start = replace(FIRST, link=link)
    begin(spec, start)
    save(spec, 4)
    found = judge.after(spec, start, {"outcome": "stopped", "step": 4}, 0, EndedBy.ITSELF)
    assert (found.outcome, found.failure) == (outcome, FailureClass.TIME_LIMIT)


@pytest.mark.failure(8)
@pytest.mark.parametrize(("failed", "allowed"), [(0, True), (2, True), (3, False)])
def test_a_start_begins_while_the_budget_lasts(tmp_path: Path, failed: int, allowed: bool) -> None:
    """Two retries after a hang."""
    spec = spec_at(tmp_path)
    for restart in range(failed):
        start = replace(FIRST, restart=restart)
        begin(spec, start)
        said = Verdict(Outcome.RETRY, FailureClass.HANG, "no step", job=start.job, restart=restart)
        verdict.write(spec.stage_paths, said)
    found = judge.before(spec, replace(FIRST, restart=failed))
    assert found == (None if allowed else (FailureClass.HANG, "no step (3 so far, 2 retries allowed)"))


def test_nothing_begins_behind_a_failed_link(tmp_path: Path) -> None:
    spec = spec_at(tmp_path, continuation="chain", links=2)
    begin(spec, FIRST)
    verdict.write(spec.stage_paths, Verdict(Outcome.FAIL, FailureClass.DATA_ERROR, "row 7", job=FIRST.job))
    found = judge.before(spec, Start("101", 0, 1, "node1"))
    assert found == (FailureClass.DATA_ERROR, "job 100 failed before this link: row 7")


@pytest.mark.failure(42)
def test_a_start_without_a_verdict_is_judged_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node started anew under it: the node is charged, and left out once it has failed twice."""
    spec = spec_at(tmp_path)
    monkeypatch.setattr(nodes, "ask", lambda *argv: "NodeName=node1 State=IDLE BootTime=99999999999\n")
    for restart in range(2):
        begin(spec, replace(FIRST, restart=restart))
        assert judge.bad_nodes(spec) == []
        assert judge.before(spec, replace(FIRST, restart=restart + 1)) is None
        said = verdict.read(spec.stage_paths.verdict(FIRST.job, restart))
        assert said is not None
        assert (said.failure, said.nodes, said.judged_by) == (
            FailureClass.NODE_FAILURE,
            ("node1",),
            f"100_{restart + 1}",
        )
    assert judge.bad_nodes(spec) == ["node1"]


def test_a_node_that_is_lost_is_named_whoever_lost_it(tmp_path: Path) -> None:
    spec = spec_at(tmp_path)
    start = replace(FIRST, nodes=("node1", "node2", "node3"))
    begin(spec, start)
    spec.stage_paths.log("100", 0).write_text(
        "Connection reset by peer\nsrun: error: Node failure on node3\nDistBackendError: NCCL error\n"
    )
    lost_peer = {"outcome": "failed", "failure": "collective_timeout", "evidence": "NCCL error", "node": "node1"}
    for result in ({}, lost_peer):
        said = judge.after(spec, start, result, 1, EndedBy.ITSELF)
        assert (said.outcome, said.failure, said.nodes) == (Outcome.RETRY, FailureClass.NODE_FAILURE, ("node3",))


@pytest.mark.failure(22)
def test_neither_itself_nor_a_later_start_is_judged(tmp_path: Path) -> None:
    """A start that is taken for dead goes on with its prologue while the next one is at work; and an error that passes
    makes a start begin its prologue again, with its own note there already."""
    spec = spec_at(tmp_path)
    second = replace(FIRST, restart=1)
    for start in (FIRST, second):
        assert claim.take(spec.store_paths, claim_of(spec, start)) is None
        begin(spec, start)
    verdict.write(spec.stage_paths, Verdict(Outcome.RETRY, FailureClass.KILLED, "", 0, "100", 0, attempt=spec.attempt))
    assert judge.before(spec, FIRST) is None
    assert judge.before(spec, second) is None
    assert judge.said_of(spec, "100", 1) is None
    assert judge.before(spec, replace(FIRST, restart=2)) is None
    said = judge.said_of(spec, "100", 1)
    assert said is not None
    assert said.judged_by == "100_2"


@pytest.mark.parametrize("later", [replace(FIRST, restart=7), Start("101", 0, 1, "node2", ("node2",))])
def test_a_start_that_comes_between_two_looks_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: Start
) -> None:
    """Seed 3014006 of the simulation: a start was suspended between them, and a later one claimed and began."""
    spec = spec_at(tmp_path, links=2)
    assert claim.take(spec.store_paths, claim_of(spec, FIRST)) is None
    claims, starts = claim.of_attempt, judge.starts
    looked: list[str] = []

    def comes(name: str) -> None:
        looked.append(name)
        if len(looked) == 2:
            claim.take(spec.store_paths, claim_of(spec, later))
            begin(spec, later)

    def of_claims(*given: Any, **more: Any) -> Any:
        comes("claims")
        return claims(*given, **more)

    def of_notes(*given: Any) -> Any:
        comes("notes")
        return starts(*given)

    monkeypatch.setattr(judge.claim, "of_attempt", of_claims)
    monkeypatch.setattr(judge, "starts", of_notes)
    assert judge.before(spec, FIRST) is None
    monkeypatch.undo()
    assert judge.said_of(spec, later.job, later.restart) is None
    assert looked[:2] == ["notes", "claims"]


def test_what_the_node_lacks_is_tried_on_another_one_and_strikes_it(tmp_path: Path) -> None:
    """Before the work's own code: not "was killed", with its line; a second time on the same node excludes that."""
    spec = spec_at(tmp_path)
    for number in (0, 1):
        start = Start("100", number, 0, "node1", ("node1",))
        begin(spec, start)
        spec.stage_paths.log("100", number).write_text("overnight: module load cuda/12 failed on node1\n")
        said = judge.after(spec, start, {}, 78, EndedBy.ITSELF)
        verdict.write(spec.stage_paths, said)
        assert said.failure is FailureClass.ENVIRONMENT
        assert said.outcome is (Outcome.FAIL if number else Outcome.RETRY)
        assert said.evidence.startswith("overnight: module load cuda/12 failed on node1; ")
        assert said.source.endswith(f"100_{number}.log:1")
    assert judge.bad_nodes(spec) == ["node1"]


def test_a_broken_gpu_strikes_its_node_and_no_other(tmp_path: Path) -> None:
    """The rank there says so itself, or dies of it: then another one, on a sound node, tells that it lost its peer."""
    spec = spec_at(tmp_path)
    line = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    told = {"outcome": "failed", "failure": "missing_gpus", "evidence": line, "node": "node2"}
    lost = {
        "outcome": "failed",
        "failure": "collective_timeout",
        "evidence": "Connection reset by peer",
        "node": "node1",
    }
    for number, (result, struck) in enumerate(((told, ("node2",)), (lost, ()))):
        start = Start("100", number, 0, "node1", ("node1", "node2"))
        begin(spec, start)
        spec.stage_paths.log("100", number).write_text(f"Connection reset by peer\n{line}\n")
        said = judge.after(spec, start, result, 1, EndedBy.ITSELF)
        assert (said.outcome, said.failure, said.nodes) == (Outcome.RETRY, FailureClass.MISSING_GPUS, struck)
        assert said.evidence.startswith(line)


def test_processes_that_share_a_gpu_are_not_started_again(tmp_path: Path) -> None:
    spec = spec_at(tmp_path)
    start = Start("100", 0, 0, "node1", ("node1", "node2"))
    begin(spec, start)
    lines = (
        "DistBackendError: NCCL error in: x.cpp:93, invalid usage",
        "Duplicate GPU detected : rank 0 and rank 1 both",
    )
    spec.stage_paths.log("100", 0).write_text("\n".join(lines))
    said = judge.after(spec, start, {"outcome": "failed", "failure": "collective_timeout"}, 1, EndedBy.ITSELF)
    assert (said.outcome, said.failure) == (Outcome.FAIL, FailureClass.BAD_CONFIGURATION)
    assert said.evidence.startswith("Duplicate GPU detected")
    assert said.source.endswith(":2")


@pytest.mark.failure(8)
def test_starts_are_in_the_order_of_their_notes_whatever_the_clocks_of_their_nodes_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start was on a node whose clock is ten minutes behind: its verdict is no older than the first one's."""
    spec = spec_at(tmp_path)
    for restart, clock in enumerate((1000.0, 400.0, 1010.0)):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        begin(spec, replace(FIRST, restart=restart, attempt=spec.attempt), step=restart)
        said = Verdict(Outcome.RETRY, FailureClass.KILLED, job="100", restart=restart, attempt=spec.attempt, time=clock)
        verdict.write(spec.stage_paths, said)
    files_away = Verdict(Outcome.RETRY, FailureClass.FILE_SYSTEM, job="100", restart=3, attempt=spec.attempt, time=1.0)
    verdict.write(spec.stage_paths, files_away)
    assert [said.restart for _, said in judge.history(spec)] == [0, 1, 2, 3]
