"""Every state that Slurm reports for a job, and what may be concluded from it.

Closed on purpose: a state that this version does not know is ``UNKNOWN``, never guessed, and never final. A job that a
complete answer of the queue does not contain is ``LOST``: it may have ended long ago, or never have been accepted.
Neither says anything about success; only a seal does.
"""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """States and state flags of squeue(1) and sacct(1), Slurm 22.05 to 24.11."""

    # Waiting
    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    REQUEUE_FED = "REQUEUE_FED"
    SPECIAL_EXIT = "SPECIAL_EXIT"  # requeued into a held state by the site's epilogue
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    LAUNCH_FAILED = "LAUNCH_FAILED"  # a flag of a job that goes back to the queue, held
    RECONFIG_FAIL = "RECONFIG_FAIL"  # likewise: the node could not be reconfigured
    EXPEDITING = "EXPEDITING"  # requeued ahead of the others
    # Holding nodes
    CONFIGURING = "CONFIGURING"
    POWER_UP_NODE = "POWER_UP_NODE"
    RUNNING = "RUNNING"
    RESIZING = "RESIZING"
    SIGNALING = "SIGNALING"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    STAGE_OUT = "STAGE_OUT"
    COMPLETING = "COMPLETING"  # also between a requeue and PENDING: not the end
    UPDATE_DB = "UPDATE_DB"
    # Over
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    REVOKED = "REVOKED"
    # Ours
    UNKNOWN = "UNKNOWN"
    LOST = "LOST"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str) -> JobState:
        """The state in a ``State``, ``%T`` or ``%t`` column.

        ``CANCELLED by 1234`` is CANCELLED (sacct), ``CG`` is COMPLETING (compact form), ``COMPLETED+`` is a column cut
        by sacct. Anything else is UNKNOWN.
        """
        words = text.strip().upper().split()
        word = words[0].rstrip("+") if words else ""
        word = _COMPACT.get(word, word)
        # LOST is our conclusion and UNKNOWN our ignorance: no text of Slurm's may claim either.
        return cls(word) if word in _SLURM_NAMES else cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Slurm is done with the job under this id. (Somebody may still requeue it by hand.)"""
        return self in _FINAL

    @property
    def is_queued(self) -> bool:
        """Waiting for nodes, perhaps held."""
        return self in _QUEUED

    @property
    def is_running(self) -> bool:
        """Holds nodes, from their configuration to the last process."""
        return self in _RUNNING


_QUEUED = frozenset({
    JobState.PENDING, JobState.REQUEUED, JobState.REQUEUE_HOLD, JobState.REQUEUE_FED, JobState.SPECIAL_EXIT,
    JobState.RESV_DEL_HOLD, JobState.LAUNCH_FAILED, JobState.RECONFIG_FAIL, JobState.EXPEDITING,
})  # fmt: skip

_RUNNING = frozenset({
    JobState.CONFIGURING, JobState.POWER_UP_NODE, JobState.RUNNING, JobState.RESIZING, JobState.SIGNALING,
    JobState.SUSPENDED, JobState.STOPPED, JobState.STAGE_OUT, JobState.COMPLETING, JobState.UPDATE_DB,
})  # fmt: skip

_FINAL = frozenset({
    JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMEOUT, JobState.NODE_FAIL,
    JobState.OUT_OF_MEMORY, JobState.PREEMPTED, JobState.BOOT_FAIL, JobState.DEADLINE, JobState.REVOKED,
})  # fmt: skip

_SLURM_NAMES = frozenset(state.value for state in _QUEUED | _RUNNING | _FINAL)

#: Compact forms of squeue(1), JOB STATE CODES.
_COMPACT = {
    "BF": "BOOT_FAIL", "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING", "CG": "COMPLETING",
    "DL": "DEADLINE", "F": "FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY", "PD": "PENDING", "PR": "PREEMPTED",
    "R": "RUNNING", "RD": "RESV_DEL_HOLD", "RF": "REQUEUE_FED", "RH": "REQUEUE_HOLD", "RQ": "REQUEUED",
    "RS": "RESIZING", "RV": "REVOKED", "S": "SUSPENDED", "SE": "SPECIAL_EXIT", "SI": "SIGNALING", "SO": "STAGE_OUT",
    "ST": "STOPPED", "TO": "TIMEOUT",
}  # fmt: skip
