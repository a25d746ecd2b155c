"""What can be said of a stage, and the two sources that say how a job ended: its own verdict, and Slurm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.core.progress import Report
from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass, Outcome, Verdict
from launch.base.text import clock, duration
from launch.slurm.queue import QueueRow


class State(StrEnum):
    """What a stage is doing."""

    SEALED = "sealed"
    RUNNING = "running"
    WAITING = "waiting"
    BLOCKED = "blocked"  # waits for something that will not come
    SUBMITTING = "being submitted"
    NOT_SUBMITTED = "not submitted"
    DEFERRED = "deferred"  # a job of the run submits it at its end
    FAILED = "failed"
    STOPPED = "stopped"  # saved and left because it was asked to
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # never ran, because a stage above did not succeed
    SUPERSEDED = "superseded"
    LOST = "lost"
    UNKNOWN = "unknown"  # the cluster does not answer

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to do something."""
        return self in (State.FAILED, State.LOST, State.BLOCKED)

    @property
    def is_over(self) -> bool:
        """Neither done nor going to be without a ``resume``."""
        return self in _OVER

    @property
    def is_live(self) -> bool:
        """Whether it is at work or will be by itself, as far as is known."""
        return self is not State.SEALED and not self.is_over


def are_over(states: Iterable[State]) -> bool:
    """Whether nothing goes on any more without a ``resume``."""
    return not any(state.is_live for state in states)


_OVER = frozenset({
    State.FAILED, State.LOST, State.BLOCKED, State.STOPPED, State.CANCELLED, State.SKIPPED, State.SUPERSEDED,
    State.NOT_SUBMITTED,
})  # fmt: skip


@dataclass(frozen=True)
class StageStatus:
    """One stage. ``text`` says the state in words; times are epoch seconds, ``left`` and ``elapsed`` are seconds;
    ``source`` is where the evidence stands (``file:line``); ``owner`` is another user whose job it is; ``avoids`` are
    nodes that it excludes, because they failed it or its user excludes them."""

    stage: str
    state: State
    text: str
    evidence: str = ""
    source: str = ""
    job: str = ""
    nodes: str = ""
    elapsed: float | None = None
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    left: float | None = None
    starts_at: float | None = None
    continued: int = 0
    of_run: str = ""
    owner: str = ""
    failure: str = ""
    avoids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.stage}: {self.text}"


@dataclass(frozen=True)
class RunStatus:
    """All stages in the order of the plan. ``unreachable``: why the cluster gave no response, or empty;
    ``responded_at``: when it last answered us or one of our jobs."""

    stages: tuple[StageStatus, ...]
    created_at: float | None = None
    unreachable: str = ""
    responded_at: float | None = None

    @property
    def is_done(self) -> bool:
        return all(stage.state is State.SEALED for stage in self.stages)

    @property
    def is_over(self) -> bool:
        """Whether nothing goes on any more without a ``resume``."""
        return are_over(stage.state for stage in self.stages)

    @property
    def cluster(self) -> dict[str, object]:
        """Whether the cluster gave a response, as plain data."""
        return {"unreachable": self.unreachable or None, "responded_at": self.responded_at}

    @property
    def silence(self) -> str:
        """That the cluster gives no response, since when and why; empty where it gives one."""
        if not self.unreachable:
            return ""
        last = "it never answered" if self.responded_at is None else f"it last answered at {clock(self.responded_at)}"
        return f"The cluster does not answer ({last}): {self.unreachable}"

    def __str__(self) -> str:
        return "\n".join([*filter(None, [self.silence]), *map(str, self.stages)])

    def stage(self, name: str) -> StageStatus:
        """The stage of that name. Raises KeyError: there is none."""
        return {one.stage: one for one in self.stages}[name]

    def of(self, *states: State) -> list[StageStatus]:
        """Stages in one of these states."""
        return [stage for stage in self.stages if stage.state in states]


def by_verdict(base: StageStatus, said: Verdict) -> StageStatus:
    """``base`` with what the job itself said at its end."""
    if said.outcome is Outcome.DONE:
        return replace(base, state=State.LOST, text="reported that it was done, but there is no seal", step=said.step)
    if said.failure is FailureClass.CANCELLED:
        state = State.STOPPED if said.job.startswith("local-") else State.CANCELLED
        return replace(base, state=state, text=said.evidence or state.value, step=said.step, failure=said.failure.value)
    return replace(
        base,
        state=State.FAILED,
        text=f"failed: {FAILURES[said.failure]}",
        evidence=said.evidence,
        step=said.step,
        failure=said.failure.value,
    )


def by_slurm(base: StageStatus, state: JobState, when: str) -> StageStatus:
    """``base`` with what Slurm says of a job that left no verdict. COMPLETED without a seal is not success."""
    if state is JobState.CANCELLED:
        return replace(base, state=State.CANCELLED, text=f"cancelled{when}")
    bad = State.LOST if state is JobState.COMPLETED or not state.is_final else State.FAILED
    return replace(base, state=bad, text=f"{bad}: {ENDINGS.get(state, f'Slurm reports {state}')}{when}")


REFUSED = "failed: refused by Slurm"

FAILURES: dict[FailureClass, str] = {
    FailureClass.NONE: "no reason given",
    FailureClass.TIME_LIMIT: "ran out of time",
    FailureClass.PREEMPTED: "was preempted",
    FailureClass.NODE_FAILURE: "its node failed",
    FailureClass.KILLED: "was killed",
    FailureClass.HANG: "made no progress",
    FailureClass.NO_PROGRESS: "makes no progress",
    FailureClass.MISSING_INPUT: "an input is missing",
    FailureClass.BROKEN_INPUT: "an input is damaged",
    FailureClass.TOKENIZER: "its tokenizer is not the parent's",
    FailureClass.BAD_CONFIGURATION: "its configuration is wrong",
    FailureClass.STORAGE_FULL: "the storage is full",
    FailureClass.FILE_SYSTEM: "the file system did not answer",
    FailureClass.OUT_OF_MEMORY: "ran out of memory",
    FailureClass.GPU_MEMORY: "ran out of GPU memory",
    FailureClass.MISSING_GPUS: "found fewer GPUs than it needs",
    FailureClass.COLLECTIVE_TIMEOUT: "lost a process or the network between them",
    FailureClass.VERSIONS: "its packages do not fit each other",
    FailureClass.ENVIRONMENT: "its environment could not be set up on the node",
    FailureClass.IMAGE: "its container image cannot be used",
    FailureClass.NAMES: "a host name is not known on the node",
    FailureClass.INCOMPLETE_CHECKPOINT: "met a checkpoint that is not whole",
    FailureClass.WRONG_DATA: "its program trained on other data",
    FailureClass.DATA_ERROR: "its data cannot be used",
    FailureClass.GATE: "missed its quality gate",
    FailureClass.GATE_UNDECIDED: "measured too little to decide its quality gate",
    FailureClass.CODE_ERROR: "an error in the code",
    FailureClass.CANCELLED: "was stopped",
    FailureClass.CLAIM_LOST: "another job took its place",
}

#: Of jobs that left no verdict of their own.
ENDINGS: dict[JobState, str] = {
    JobState.COMPLETED: "Slurm reports COMPLETED, but there is no seal",
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


def running(doing: str, last: Report, left: float | None, quiet: float | None, held_out: float | None = None) -> str:
    """``running, step 12 of 60, loss 3.214, 4:10 left``; ``quiet``: seconds since the last step if they are many;
    ``held_out``: the newest loss of a validation."""
    of = "" if last.total is None else f" of {last.total}"
    parts = [doing, f"{last.phase or 'step'} {last.step}{of}"]
    if "loss" in last.metrics:
        parts.append(f"loss {last.metrics['loss']:.4g}")
    if held_out is not None:
        parts.append(f"validation loss {held_out:.4g}")
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
