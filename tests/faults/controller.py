"""Slurm's side of a job, as a state machine without a clock of its own: shared by the fake commands and the simulation.

Modelled on what 22.05 does (measured on the throw-away cluster): a job that is requeued keeps its id and counts its
restarts at once, a cancelled or timed-out job may still be requeued while it completes, an edge to an id that is not
known (any more) counts as satisfied, or is refused as 24.11 does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"})
ACTIVE = frozenset({"RUNNING", "COMPLETING"})
REQUEUE_SECONDS = 6.0
"""A requeued job may start again this much later (cred_expire + 1)."""

NOT_PENDING = "slurm_update error: Job is no longer pending execution"
DISABLED = "Requested operation is presently disabled for job"
UNKNOWN_ID = "Invalid job id specified"
BAD_DEPENDENCY = "Job dependency problem"


class Refused(Exception):
    """The controller says no; the text is Slurm's."""


@dataclass
class Job:
    """One job. ``ending`` is what becomes of it when its processes have gone (empty: their exit code decides)."""

    id: str
    name: str
    script: str
    submitted: float
    dependency: str = ""
    requeue: bool = True
    kill_on_invalid: bool = False
    held: bool = False
    state: str = "PENDING"
    reason: str = "None"
    begin: float = 0.0
    start: float | None = None
    end: float | None = None
    limit: float = 600.0
    restarts: int = 0
    exit_code: int = 0
    node: str = ""
    ending: str = ""
    link: int = 0
    excluded: str = ""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


@dataclass
class Controller:
    """The queue. Whoever drives it starts what ``schedule`` returns and calls ``ended`` when the processes have gone."""

    jobs: dict[str, Job] = field(default_factory=dict)
    next_id: int = 1
    nodes: int = 4
    refuse_unknown: bool = False
    forgotten: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> Job:
        """Take a job (its ``id`` is given here).

        Raises:
            Refused: a dependency on the id that it would have, or, where that is refused, on one that is not known.
        """
        if any(other == str(self.next_id) for _, other in edges(job.dependency)):
            self.next_id += 1  # Slurm uses the id up, too
            raise Refused(BAD_DEPENDENCY)
        if self.refuse_unknown and any(other not in self.jobs for _, other in edges(job.dependency)):
            raise Refused(BAD_DEPENDENCY)
        job.dependency = self._open_edges(job.dependency)
        job.id = str(self.next_id)
        self.next_id += 1
        if job.id in self.jobs:  # ids are used again
            self.forgotten.append(self.jobs[job.id])
        self.jobs[job.id] = job
        return job

    def schedule(self, now: float) -> list[Job]:
        """Decide on every waiting job; those that start now, which are RUNNING on a node."""
        started = []
        for job in list(self.jobs.values()):
            if job.state != "PENDING":
                continue
            job.reason = self._reason(job, now)
            if job.reason == "DependencyNeverSatisfied" and job.kill_on_invalid:
                self._end(job, "CANCELLED", now)
            elif job.reason == "None":
                free = self._free_node(job.excluded.split(","))
                if free is None:
                    job.reason = "Resources"
                    continue
                job.state, job.start, job.end, job.ending, job.node = "RUNNING", now, now + job.limit, "", free
                started.append(job)
        return started

    @property
    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    def _free_node(self, excluded: Iterable[str]) -> str | None:
        used = {job.node for job in self.jobs.values() if job.state in ACTIVE} | set(excluded)
        return next((name for name in self.node_names if name not in used), None)

    def _open_edges(self, dependency: str) -> str:
        """Without those that are satisfied: Slurm drops them, so that an id that is used again means nothing."""
        left = []
        for kind, other in edges(dependency):
            parent = self.jobs.get(other)
            if parent is not None and not (parent.state == "COMPLETED" or (parent.is_final and kind == "afterany")):
                left.append(f"{kind}:{other}")
        return ",".join(left)

    def _reason(self, job: Job, now: float) -> str:
        job.dependency = self._open_edges(job.dependency)
        waits = False
        for kind, other in edges(job.dependency):
            if not self.jobs[other].is_final:
                waits = True
            elif kind == "afterok":
                return "DependencyNeverSatisfied"
        if job.held:
            return "JobHeldUser"
        if waits:
            return "Dependency"
        return "BeginTime" if job.begin > now else "None"

    def ended(self, job_id: str, exit_code: int, now: float) -> Job | None:
        """The processes of a job have gone; the job, or None where it is not known any more."""
        job = self.jobs.get(job_id)
        if job is None or job.state not in ACTIVE:
            return job
        if job.ending == "REQUEUE":
            self._back(job, now)
            return job
        job.exit_code = exit_code
        self._end(job, job.ending or ("COMPLETED" if exit_code == 0 else "FAILED"), now)
        return job

    def _end(self, job: Job, state: str, now: float) -> None:
        job.state, job.end, job.ending = state, now, ""
        job.start = job.start if job.start is not None else now

    def _back(self, job: Job, now: float) -> None:
        job.state, job.reason, job.begin, job.ending, job.node = "PENDING", "BeginTime", now + REQUEUE_SECONDS, "", ""
        job.start = job.end = None

    # What people and the cluster do to jobs. True: its processes are to get a TERM.

    def cancel(self, job_id: str, now: float) -> bool:
        """scancel. Ended and unknown jobs are passed over, as by scancel."""
        job = self.jobs.get(job_id)
        if job is None or job.is_final:
            return False
        if job.state == "PENDING":
            self._end(job, "CANCELLED", now)
            return False
        job.state, job.ending, job.reason = "COMPLETING", "CANCELLED", "None"
        return True

    def requeue(self, job_id: str) -> bool:
        """scontrol requeue; also what a preemption does.

        Raises:
            Refused
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise Refused(UNKNOWN_ID)
        if not job.requeue or job.state not in ACTIVE:
            raise Refused(DISABLED)
        if job.ending != "REQUEUE":
            job.restarts += 1
        job.state, job.ending = "COMPLETING", "REQUEUE"
        return True

    def time_out(self, job_id: str) -> bool:
        """The time limit is reached."""
        job = self.jobs.get(job_id)
        if job is None or job.state != "RUNNING":
            return False
        job.state, job.ending, job.reason = "COMPLETING", "TIMEOUT", "TimeLimit"
        return True

    def node_fail(self, job_id: str, now: float) -> bool:
        """The job's node is gone, and its processes with it (or so it seems). True if there was such a job."""
        job = self.jobs.get(job_id)
        if job is None or job.state not in ACTIVE:
            return False
        if job.requeue and job.ending not in ("CANCELLED",):
            if job.ending != "REQUEUE":
                job.restarts += 1
            self._back(job, now)
        else:
            self._end(job, job.ending or "NODE_FAIL", now)
        return True

    def update_dependency(self, job_id: str, dependency: str) -> None:
        """scontrol update dependency=.

        Raises:
            Refused
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise Refused(UNKNOWN_ID)
        if job.state == "COMPLETING" and job.ending == "REQUEUE":  # measured: accepted, counts after the restart
            job.dependency = dependency
            return
        if job.state != "PENDING":
            raise Refused(NOT_PENDING)
        job.dependency = self._open_edges(dependency)

    def exclude_nodes(self, job_id: str, names: str) -> None:
        """scontrol update excnodelist=.

        Raises:
            Refused
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise Refused(UNKNOWN_ID)
        if job.state != "PENDING" and not (job.state == "COMPLETING" and job.ending == "REQUEUE"):
            raise Refused(NOT_PENDING)
        job.excluded = names

    def release(self, ids: Iterable[str]) -> None:
        for job_id in ids:
            self.jobs[job_id].held = False

    def purge(self, older_than: Callable[[Job], bool]) -> None:
        """Forget ended jobs, as after MinJobAge."""
        for job in [job for job in self.jobs.values() if job.is_final and older_than(job)]:
            self.forgotten.append(self.jobs.pop(job.id))

    def lose(self, job_id: str) -> None:
        """A waiting job is gone without a trace: the controller was killed before it wrote its state."""
        if self.jobs[job_id].state == "PENDING":
            self.forgotten.append(self.jobs.pop(job_id))


_EDGES = re.compile(r"(after\w*)((?::\d+)+)")


def edges(dependency: str) -> list[tuple[str, str]]:
    """``afterok:1:2,afterany:3`` -> ("afterok", "1"), ..."""
    return [(kind, one) for kind, ids in _EDGES.findall(dependency) for one in ids.split(":") if one]
