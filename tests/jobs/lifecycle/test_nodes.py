"""Which nodes failed a start, and what is concluded from Slurm's answers about a job and its nodes."""

from __future__ import annotations

import shutil

import pytest

from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass
from jobs.lifecycle import nodes


def answers(monkeypatch: pytest.MonkeyPatch, **said: str | None) -> None:
    """Slurm's commands answer this; the others do not."""
    monkeypatch.setattr(nodes, "ask", lambda *argv: said.get(argv[0]))


@pytest.mark.parametrize("state", JobState)
def test_a_job_is_at_work_where_it_holds_nodes(monkeypatch: pytest.MonkeyPatch, state: JobState) -> None:
    answers(monkeypatch, squeue=f"6 RUNNING\n7 {state}\n")
    assert nodes.is_at_work("7") == state.is_running


def test_a_job_that_is_not_listed_and_a_queue_that_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, squeue="6 RUNNING\n")
    assert not nodes.is_at_work("7")
    answers(monkeypatch)
    for path, there in (("/usr/bin/squeue", True), (None, False)):
        monkeypatch.setattr(shutil, "which", lambda name, path=path: path)
        assert nodes.is_at_work("7") == there


@pytest.mark.parametrize(
    ("state", "failure", "evidence"),
    [
        ("PREEMPTED", FailureClass.PREEMPTED, "sacct: job 7 PREEMPTED"),
        ("NODE_FAIL", FailureClass.NODE_FAILURE, "sacct: job 7 NODE_FAIL"),
        ("BOOT_FAIL", FailureClass.NODE_FAILURE, "sacct: job 7 BOOT_FAIL"),
        ("OUT_OF_MEMORY", FailureClass.OUT_OF_MEMORY, "sacct: job 7 OUT_OF_MEMORY"),
        ("CANCELLED by 1000", FailureClass.KILLED, "job 7 ended before it could say how; sacct reports CANCELLED"),
    ],
)
def test_what_the_accounting_says_of_a_start(
    monkeypatch: pytest.MonkeyPatch, state: str, failure: FailureClass, evidence: str
) -> None:
    answers(monkeypatch, sacct=f"COMPLETED|10|20\n{state}|100|200\n")
    found = nodes.ending("7", 1, {"n1": 100.0, "n2": None})
    assert (found.failure, found.evidence, found.nodes) == (failure, evidence, ())


def test_no_record_of_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, sacct="COMPLETED|10|Unknown\n")
    found = nodes.ending("7", 1, {"n1": 100.0})
    assert found.evidence == "job 7 ended before it could say how; Slurm keeps no record of why"


@pytest.mark.failure(8)
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[1-3,07-09],login1", ["node1", "node2", "node3", "node07", "node08", "node09", "login1"]),
        ("a[1,3]b", ["a1b", "a3b"]),
        ("", []),
        ("$(x)", []),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    assert list(nodes.expand(text)) == names


@pytest.mark.failure(42)
@pytest.mark.parametrize(
    ("sacct", "scontrol", "failure", "at_fault"),
    [
        (None, None, FailureClass.KILLED, ()),
        ("PREEMPTED|90|110\n", None, FailureClass.PREEMPTED, ()),
        ("NODE_FAIL|90|110\n", None, FailureClass.NODE_FAILURE, ()),
        ("NODE_FAIL|90|110\n", "NodeName=b State=DOWN*\n", FailureClass.NODE_FAILURE, ("b",)),
        ("OUT_OF_MEMORY|90|110\n", None, FailureClass.OUT_OF_MEMORY, ()),
        ("OUT_OF_MEMORY|10|20\nFAILED|30|40\n", None, FailureClass.KILLED, ()),  # an earlier run of the job
        ("RUNNING|30|Unknown\nOUT_OF_MEMORY|10|20\n", None, FailureClass.OUT_OF_MEMORY, ()),  # the run that judges
        (None, "NodeName=a State=IDLE BootTime=99\nNodeName=b State=IDLE SlurmdStartTime=701\n",
         FailureClass.NODE_FAILURE, ("b",)),
        (None, "NodeName=a State=IDLE BootTime=99\nNodeName=b State=IDLE SlurmdStartTime=699\n",  # by its own clock before
         FailureClass.KILLED, ()),
        (None, "NodeName=c State=IDLE BootTime=101\n", FailureClass.KILLED, ()),  # never heard of
    ],
)  # fmt: skip
def test_how_a_start_ended_that_could_not_say_it(
    monkeypatch: pytest.MonkeyPatch,
    sacct: str | None,
    scontrol: str | None,
    failure: FailureClass,
    at_fault: tuple[str, ...],
) -> None:
    answers(monkeypatch, sacct=sacct, scontrol=scontrol)
    found = nodes.ending("7", 1, {"a": 100.0, "b": 700.0, "c": None})  # the clock of b is ten minutes ahead
    assert (found.failure, found.nodes) == (failure, at_fault)


@pytest.mark.failure(42)
@pytest.mark.parametrize(
    ("strikes", "needed", "left_out"),
    [
        (["a"], 1, []),
        (["a", "b", "a"], 1, ["a", "x"]),
        (["a", "b", "a", "b"], 1, ["a", "b", "x"]),
        (["a", "b", "a", "b"], 2, ["b", "x"]),  # a, b and c are usable: the newest is left out
        (["a", "a"], 3, []),
    ],
)
def test_what_is_left_out_leaves_enough_nodes(
    monkeypatch: pytest.MonkeyPatch, strikes: list[str], needed: int, left_out: list[str]
) -> None:
    """``x`` was left out by the job's user, ``d`` is down."""
    answers(monkeypatch, scontrol="Partition=gpu ExcNodeList=x", sinfo="a idle\nb mixed\nc idle\nd down*\nx idle\n")
    assert nodes.to_avoid("7", strikes, needed) == left_out


def test_where_slurm_does_not_answer_nothing_is_concluded(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    assert nodes.to_avoid("7", ["a", "a"], 1) == []
    monkeypatch.setattr(nodes.shutil, "which", lambda name: "/usr/bin/squeue")
    assert nodes.is_at_work("7"), "it may be"
    answers(monkeypatch, squeue="7 COMPLETED\n7 RUNNING\n8 RUNNING\n")
    assert nodes.is_at_work("7")
    answers(monkeypatch, squeue="7 COMPLETED\n8 RUNNING\n")
    assert not nodes.is_at_work("7")
