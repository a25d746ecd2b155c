"""Rows of squeue and sacct, with everything that a name or a reason may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.core.slurm_states import JobState
from launch.slurm.queue import parse_sacct, parse_squeue


def squeue_row(name="cpt", reason="None", job_id="12", state="PENDING", dependency="(null)"):
    times = ["1795496784", "N/A", "N/A"]
    return "\x1e" + "\x1f".join([job_id, state, *times, "2", "node[1-2]", "batch", name, dependency, reason]) + "\n"


def test_fields():
    (row,) = parse_squeue(squeue_row(reason="Dependency", dependency="afterok:11(unfulfilled)"))
    assert (row.job_id, row.name, row.state, row.reason) == ("12", "cpt", JobState.PENDING, "Dependency")
    assert (row.submitted, row.start, row.end) == (1795496784.0, None, None)
    assert (row.nodes, row.node_list, row.partition) == (2, "node[1-2]", "batch")
    assert row.dependency == "afterok:11(unfulfilled)"
    assert row.why == "waits for an earlier stage"


def test_a_job_that_does_not_wait_has_no_reason_to():
    (row,) = parse_squeue(squeue_row(state="COMPLETED"))
    assert (row.why, row.dependency) == ("", "")


def test_the_trace_of_a_refused_submission_is_no_job():
    rows = parse_squeue(
        squeue_row(state="FAILED", reason="BadConstraints")
        + squeue_row(state="FAILED", reason="NonZeroExitCode")
        + squeue_row(state="PENDING", reason="BadConstraints")
    )
    assert [row.is_refusal for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    "name",
    ["a|b;c", "line\nbreak", "quo\"te ' é", "\x1f", "a\x1fb\x1fc", "", "\x1e", "\x1e\x1f", "x\x1eno row\x1f", "%i %j"],
)
def test_other_peoples_names_do_not_shift_fields(name):
    rows = parse_squeue(squeue_row(name=name) + squeue_row(name="ours", job_id="13", reason="Nodes are DOWN, DRAINED"))
    assert [(row.job_id, row.name, row.reason) for row in rows] == [
        ("12", name, "None"),
        ("13", "ours", "Nodes are DOWN, DRAINED"),
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\x1e", codec="utf-8")), max_size=4))
def test_any_names(names):
    rows = parse_squeue("".join(squeue_row(name=name, job_id=str(number)) for number, name in enumerate(names, 1)))
    assert [row.name for row in rows] == names


def test_empty_queue_and_banner():
    assert parse_squeue("") == []
    assert [row.job_id for row in parse_squeue("*** Maintenance on 1|2|3 ***\n" + squeue_row())] == ["12"]


def test_a_torn_row_is_an_error_and_not_a_missing_job():
    with pytest.raises(ValueError, match="cannot be read"):
        parse_squeue(squeue_row() + "\x1e13\x1fRUNNING\x1f1795")


def test_sacct_keeps_every_run_of_a_requeued_job():
    output = "".join(
        "\x1f".join(["12", state, code, "1795496784", start, end, nodes, "we|ird\nname\x1f2"]) + "\n"
        for state, code, start, end, nodes in [
            ("REQUEUED", "0:15", "1795496785", "1795496795", "node1"),
            ("CANCELLED by 2001", "0:0", "Unknown", "1795496799", "None assigned"),
        ]
    )
    first, second = parse_sacct("sacct: a banner\n" + output)
    assert (first.state, first.exit_code, first.end) == (JobState.REQUEUED, "0:15", 1795496795.0)
    assert (second.state, second.start, second.name) == (JobState.CANCELLED, None, "we|ird\nname\x1f2")


def test_a_state_of_a_later_version_does_not_lose_its_row():
    """A row that is not recognised would read as a job that has gone."""
    line = (
        "\x1e"
        + "\x1f".join(["12", "NEW_2_STATE", "1", "2", "3", "1", "node1", "batch", "name", "(null)", "None"])
        + "\n"
    )
    (found,) = parse_squeue(line)
    assert (found.job_id, found.state) == ("12", JobState.UNKNOWN)
