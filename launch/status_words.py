"""The words in which ``status`` speaks: of failures, of Slurm's states, of progress and of waiting."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.core.progress import Report
from jobs.core.verdict import FailureClass
from launch.base.text import clock, duration
from launch.slurm.queue import QueueRow
from launch.slurm.states import JobState

FAILURES: dict[FailureClass, str] = {
    FailureClass.NONE: "no reason given",
    FailureClass.TIME_LIMIT: "ran out of time",
    FailureClass.PREEMPTED: "was preempted",
    FailureClass.NODE_FAILURE: "its node failed",
    FailureClass.KILLED: "was killed",
    FailureClass.HANG: "stood still",
    FailureClass.NO_PROGRESS: "makes no progress",
    FailureClass.MISSING_INPUT: "an input is missing",
    FailureClass.BROKEN_INPUT: "an input is damaged",
    FailureClass.TOKENIZER: "its tokenizer is not the parent's",
    FailureClass.BAD_CONFIGURATION: "its configuration is wrong",
    FailureClass.STORAGE_FULL: "the storage is full",
    FailureClass.OUT_OF_MEMORY: "ran out of memory",
    FailureClass.GPU_MEMORY: "ran out of GPU memory",
    FailureClass.MISSING_GPUS: "found fewer GPUs than it needs",
    FailureClass.COLLECTIVE_TIMEOUT: "lost a process or the network between them",
    FailureClass.VERSIONS: "its packages do not fit each other",
    FailureClass.INCOMPLETE_CHECKPOINT: "met a checkpoint that is not whole",
    FailureClass.WRONG_DATA: "its program trained on other data",
    FailureClass.DATA_ERROR: "its data cannot be used",
    FailureClass.GATE: "missed its quality gate",
    FailureClass.CODE_ERROR: "an error in the code",
    FailureClass.CANCELLED: "was stopped",
    FailureClass.CLAIM_LOST: "another job took its place",
}

#: Of jobs that left no verdict of their own.
ENDINGS: dict[JobState, str] = {
    JobState.COMPLETED: "Slurm says COMPLETED, but there is no seal",
    JobState.FAILED: "ended with an error",
    JobState.TIMEOUT: "reached its time limit",
    JobState.NODE_FAIL: "its node failed",
    JobState.OUT_OF_MEMORY: "used more memory than it was given",
    JobState.PREEMPTED: "was preempted",
    JobState.BOOT_FAIL: "its node did not start",
    JobState.DEADLINE: "missed its deadline",
    JobState.REVOKED: "was moved to another cluster",
}

#: Of jobs that hold nodes but do not simply run.
ACTIVE: dict[JobState, str] = {
    JobState.CONFIGURING: "its nodes are starting",
    JobState.POWER_UP_NODE: "its nodes are starting",
    JobState.SUSPENDED: "suspended",
    JobState.STOPPED: "stopped by a signal, holds its nodes",
    JobState.STAGE_OUT: "its burst buffer is being emptied",
    JobState.COMPLETING: "ending",
}


def running(doing: str, last: Report, left: float | None, quiet: float | None) -> str:
    """``running, step 12 of 60, loss 3.214, 4:10 left``; ``quiet``: seconds since the last step if they are many."""
    of = "" if last.total is None else f" of {last.total}"
    parts = [doing, f"{last.phase or 'step'} {last.step}{of}"]
    if "loss" in last.metrics:
        parts.append(f"loss {last.metrics['loss']:.4g}")
    if quiet is not None:
        parts.append(f"nothing new for {duration(quiet)}")
    elif left is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def waiting(row: QueueRow, pending: Sequence[str], starts_at: float | None) -> str:
    """Why a job waits; the stages by name where it waits for stages."""
    if row.reason == "Dependency" and pending:
        text = f"waits for {', '.join(pending)}"
    else:
        text = row.why.replace("scontrol release JOB", f"scontrol release {row.job_id}")
    return text if starts_at is None else f"{text}; Slurm expects to start it about {clock(starts_at)}"


def at_step(last: Sequence[Report]) -> str:
    """``, at step 40 of 60``, or nothing where no step was reported."""
    if not last:
        return ""
    of = "" if last[0].total is None else f" of {last[0].total}"
    return f" after step {last[0].step}{of}"
