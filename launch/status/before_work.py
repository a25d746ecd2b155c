"""Why a job ended that left no verdict: its batch shell, or Slurm, ended it before our own code could say anything."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from jobs.core import symptoms
from jobs.core.paths import StagePaths
from jobs.core.verdict import FailureClass
from launch.slurm.queue import AccountRow, QueueRow
from launch.status import logs
from launch.status.model import FAILURES, StageStatus

_NO_LOG = re.compile(r"exit code 0:53\b|RaisedSignal:53\b|JobLaunchFailure|launch_failed")
_NO_LOG_WORDS = "the node could not open the job's log or enter its directory: is the workspace mounted there?"


def by_queue(row: QueueRow) -> str:
    """What squeue says of the end of a job; empty where it gives no reason."""
    return "" if row.reason in ("", "None", "(null)") else f"squeue: job {row.job_id} {row.state}, {row.reason}"


def by_accounting(row: AccountRow) -> str:
    """What sacct says of the end of a job."""
    return f"sacct: job {row.job_id} {row.state}, exit code {row.exit_code}"


def explain(found: StageStatus, paths: StagePaths, slurm: str) -> StageStatus:
    """``found`` with class, line and place: of what its logs show, else of what Slurm says (``slurm``), else of the
    last words of its batch shell."""
    if not found.state.is_bad or not found.job:
        return found
    written = [paths.logs / f"{found.job}{logs.BATCH_SUFFIX}"]
    written += [path for path in reversed(logs.all_of(paths)) if path.name.rpartition("_")[0] == found.job]
    for path in written:
        if (shown := symptoms.search_log(path)) is not None:
            return _as(found, shown.failure, shown.line, f"{path}:{shown.number}")
    for path in written:
        if line := _last_line(path):
            return replace(
                found, evidence=line, source=symptoms.place_of(path, line), failure=FailureClass.KILLED.value
            )
    if _NO_LOG.search(slurm):  # after the logs: Slurm has the same word for a batch shell that was killed
        return _as(found, FailureClass.ENVIRONMENT, f"{slurm}: {_NO_LOG_WORDS}", "")
    return replace(found, evidence=slurm)


def _as(found: StageStatus, failure: FailureClass, line: str, source: str) -> StageStatus:
    when = " before its work began" if "before its work began" in found.text else ""
    text = f"failed: {FAILURES[failure]}{when}"
    return replace(found, text=text, evidence=line, source=source, failure=failure.value)


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 4096))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:600] for line in reversed(lines) if line.strip()), "")
