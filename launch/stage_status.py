"""What can be said of a stage, and the two sources that say how a job ended: its own verdict, and Slurm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.core.verdict import FailureClass, Outcome, Verdict
from launch import status_words
from launch.slurm.states import JobState


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


_OVER = frozenset({
    State.FAILED, State.LOST, State.BLOCKED, State.STOPPED, State.CANCELLED, State.SKIPPED, State.SUPERSEDED,
    State.NOT_SUBMITTED,
})  # fmt: skip


@dataclass(frozen=True)
class StageStatus:
    """One stage. ``text`` says the state in words; times are epoch seconds, ``left`` and ``elapsed`` are seconds;
    ``avoids`` are nodes that it keeps off, because they failed it or its user excludes them."""

    stage: str
    state: State
    text: str
    evidence: str = ""
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
    failure: str = ""
    avoids: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunStatus:
    """All stages in the order of the plan. ``silence``: why the cluster was not heard, or empty; ``heard_at``: when it
    last answered us or one of our jobs."""

    stages: tuple[StageStatus, ...]
    created_at: float | None = None
    silence: str = ""
    heard_at: float | None = None

    @property
    def is_done(self) -> bool:
        return all(stage.state is State.SEALED for stage in self.stages)

    def of(self, *states: State) -> list[StageStatus]:
        """Stages in one of these states."""
        return [stage for stage in self.stages if stage.state in states]


def by_verdict(base: StageStatus, said: Verdict) -> StageStatus:
    """``base`` with what the job itself said at its end."""
    if said.outcome is Outcome.DONE:
        return replace(base, state=State.LOST, text="said that it was done, but there is no seal", step=said.step)
    if said.failure is FailureClass.CANCELLED:
        state = State.STOPPED if said.job.startswith("local-") else State.CANCELLED
        return replace(base, state=state, text=said.evidence or state.value, step=said.step)
    return replace(
        base, state=State.FAILED, text=f"failed: {status_words.FAILURES[said.failure]}", evidence=said.evidence,
        step=said.step, failure=said.failure.value,
    )  # fmt: skip


def by_slurm(base: StageStatus, state: JobState, when: str) -> StageStatus:
    """``base`` with what Slurm says of a job that left no verdict. COMPLETED without a seal is not success."""
    if state is JobState.CANCELLED:
        return replace(base, state=State.CANCELLED, text=f"cancelled{when}")
    bad = State.LOST if state is JobState.COMPLETED or not state.is_final else State.FAILED
    return replace(base, state=bad, text=f"{bad}: {status_words.ENDINGS.get(state, f'Slurm says {state}')}{when}")
