"""A closed enum over what Slurm says; nothing is guessed."""

import pytest

from jobs.core.slurm_states import _COMPACT, JobState

# squeue(1), JOB STATE CODES, of 22.05, and the flags that 24.05 and 24.11 print in their place.
SQUEUE_22_05 = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "CONFIGURING",
    "COMPLETING",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PENDING",
    "PREEMPTED",
    "RUNNING",
    "RESV_DEL_HOLD",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "REQUEUED",
    "RESIZING",
    "REVOKED",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
    "TIMEOUT",
]
LATER = ["LAUNCH_FAILED", "RECONFIG_FAIL", "POWER_UP_NODE", "UPDATE_DB", "EXPEDITING"]


@pytest.mark.parametrize("name", SQUEUE_22_05 + LATER)
@pytest.mark.failure(21)
def test_every_state_is_known_and_in_exactly_one_group(name):
    state = JobState.parse(name)
    assert state.value == name
    assert [state.is_queued, state.is_running, state.is_final].count(True) == 1


def test_nothing_else_is_in_the_enum():
    assert {state.value for state in JobState} == {*SQUEUE_22_05, *LATER, "UNKNOWN", "LOST"}


@pytest.mark.parametrize(("compact", "name"), _COMPACT.items())
def test_compact_forms(compact, name):
    assert JobState.parse(compact) is JobState(name)


def test_every_state_of_the_manual_has_its_compact_form():
    assert sorted(_COMPACT.values()) == sorted(SQUEUE_22_05)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 1234", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        (" RUNNING \n", JobState.RUNNING),
        ("completed", JobState.COMPLETED),
        ("", JobState.UNKNOWN),
        ("NEW_IN_26_05", JobState.UNKNOWN),
        ("LOST", JobState.UNKNOWN),
        ("UNKNOWN", JobState.UNKNOWN),
    ],
)
@pytest.mark.failure(21)
def test_parse(text, state):
    assert JobState.parse(text) is state


@pytest.mark.parametrize("state", [JobState.UNKNOWN, JobState.LOST])
@pytest.mark.failure(18, 21)
def test_not_knowing_is_neither_waiting_nor_running_nor_over(state):
    assert [state.is_queued, state.is_running, state.is_final] == [False] * 3


@pytest.mark.parametrize("name", ["SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUED"])
@pytest.mark.failure(21)
def test_states_that_others_take_for_the_end(name):
    assert not JobState(name).is_final
