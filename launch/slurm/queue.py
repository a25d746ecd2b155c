"""Rows of squeue and sacct, in text formats of our own choosing.

Not ``--json``: its shape and its numbers differ between 21.08, 22.05, 23.11 and 24.11 (22.05's ``sacct --json`` even
says exit code 0 for ``exit 5``), while ``-o`` has been the same in all of them.

A user's queue also holds jobs that are not ours, whose names may hold anything, line breaks included. So fields are
separated by the ASCII unit separator and rows begin with the record separator; squeue passes both on unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.core.slurm_states import JobState
from launch.slurm import reasons

_FIELD = "\x1f"
_ROW = "\x1e"

# The name is in the middle: fixed numbers of clean fields on both sides keep it whole whatever it holds.
SQUEUE_FORMAT = _ROW + _FIELD.join(["%A", "%T", "%V", "%S", "%e", "%D", "%N", "%P", "%j", "%E", "%r"])
_BEFORE_NAME, _AFTER_NAME = 8, 2

#: A record begins where a separator is followed by an id and a state; a bare separator may be part of a name.
_ROW_START = re.compile(rf"{_ROW}(?=\d+{_FIELD}[A-Z][A-Z0-9_]*{_FIELD})")

SACCT_DELIMITER = _FIELD
SACCT_FIELDS = "JobIDRaw,State,ExitCode,Submit,Start,End,NodeList,JobName"
_SACCT_ROW = re.compile(rf"^(?=\d+{_FIELD}[A-Z][A-Z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class QueueRow:
    """What squeue knows about one job. Times are epoch seconds; ``start`` of a waiting job is Slurm's estimate."""

    job_id: str
    name: str
    state: JobState
    reason: str
    submitted: float | None
    start: float | None
    end: float | None
    nodes: int
    node_list: str
    partition: str
    dependency: str

    @property
    def why(self) -> str:
        """Why it waits, in plain words; empty for a job that does not wait."""
        return reasons.describe(self.reason) if self.state.is_queued else ""

    @property
    def is_refusal(self) -> bool:
        """The trace of a refused submission, not a job: sbatch said "Requested node configuration is not available",
        and the controller keeps a FAILED record of that name all the same (22.05)."""
        return self.state is JobState.FAILED and self.reason == "BadConstraints"


@dataclass(frozen=True)
class AccountRow:
    """One run of a job in the accounting database; a requeued job has several with the same id."""

    job_id: str
    name: str
    state: JobState
    exit_code: str
    submitted: float | None
    start: float | None
    end: float | None
    node_list: str


def parse_squeue(output: str) -> list[QueueRow]:
    """Rows of ``squeue -h -o SQUEUE_FORMAT``. Text before the first record (a site's banner) is passed over.

    Raises:
        ValueError: a record has too few fields, so the answer cannot be trusted to be complete.
    """
    rows = []
    for record in _ROW_START.split(output)[1:]:
        fields = record.rstrip("\n").split(_FIELD)
        if len(fields) <= _BEFORE_NAME + _AFTER_NAME:
            raise ValueError(f"squeue printed a row that cannot be read: {record!r}")
        job_id, state, submitted, start, end, nodes, node_list, partition = fields[:_BEFORE_NAME]
        dependency, reason = fields[-_AFTER_NAME:]
        rows.append(
            QueueRow(
                job_id=job_id,
                name=_FIELD.join(fields[_BEFORE_NAME:-_AFTER_NAME]),
                state=JobState.parse(state),
                reason=reason,
                submitted=_epoch(submitted),
                start=_epoch(start),
                end=_epoch(end),
                nodes=int(nodes) if nodes.isdigit() else 0,
                node_list=node_list,
                partition=partition,
                dependency="" if dependency == "(null)" else dependency,
            )
        )
    return rows


def parse_sacct(output: str) -> list[AccountRow]:
    """Rows of ``sacct -n -P --delimiter=SACCT_DELIMITER -o SACCT_FIELDS``; what is not a row is passed over.

    The database is written to some time after the fact, so rows may be missing or old; nothing is concluded here.
    """
    rows = []
    for record in _SACCT_ROW.split(output):
        fields = record.rstrip("\n").split(_FIELD, 7)
        if len(fields) < 8:
            continue
        job_id, state, exit_code, submitted, start, end, node_list, name = fields
        rows.append(
            AccountRow(
                job_id=job_id,
                name=name,
                state=JobState.parse(state),
                exit_code=exit_code,
                submitted=_epoch(submitted),
                start=_epoch(start),
                end=_epoch(end),
                node_list=node_list,
            )
        )
    return rows


def _epoch(text: str) -> float | None:
    """Epoch seconds, or None for ``N/A``, ``Unknown`` and the like."""
    return float(text) if text.isdigit() and text != "0" else None
