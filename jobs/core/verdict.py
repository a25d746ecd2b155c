"""What a restart of a job concluded, carried in a file: exit codes get lost in step tear-down."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from jobs.core import files, patience, redaction, strict
from jobs.core.claim import ClaimLost
from jobs.core.paths import StagePaths
from jobs.core.seal import SealBroken


class Outcome(str, Enum):
    """How a restart ended: sealed, to go on from a save, to try again, or for good."""

    DONE = "done"
    CONTINUE = "continue"
    RETRY = "retry"
    FAIL = "fail"


class FailureClass(str, Enum):
    """Why a restart ended without finishing. Closed: anything else is CODE_ERROR or KILLED."""

    NONE = "none"
    TIME_LIMIT = "time_limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    KILLED = "killed"
    HANG = "hang"
    NO_PROGRESS = "no_progress"
    MISSING_INPUT = "missing_input"
    BROKEN_INPUT = "broken_input"
    TOKENIZER = "wrong_tokenizer"
    BAD_CONFIGURATION = "bad_configuration"
    STORAGE_FULL = "storage_full"
    FILE_SYSTEM = "file_system"
    OUT_OF_MEMORY = "out_of_memory"
    GPU_MEMORY = "gpu_out_of_memory"
    MISSING_GPUS = "missing_gpus"
    COLLECTIVE_TIMEOUT = "collective_timeout"
    VERSIONS = "version_mismatch"
    ENVIRONMENT = "environment"
    IMAGE = "image"
    NAMES = "unresolved_name"
    INCOMPLETE_CHECKPOINT = "incomplete_checkpoint"
    WRONG_DATA = "wrong_data"
    DATA_ERROR = "data_error"
    GATE = "quality_gate"
    GATE_UNDECIDED = "gate_undecided"
    CODE_ERROR = "code_error"
    CANCELLED = "cancelled"
    CLAIM_LOST = "claim_lost"


@dataclass(frozen=True)
class Verdict:
    """The conclusion of one restart.

    ``evidence`` is the line that shows it and ``source`` where it stands (``file:line``); ``nodes`` are those at fault;
    ``judged_by`` names the later start that judged one which could not do so itself; ``step`` is the newest save;
    ``attempt`` is the token of the submission, which unlike the id of its job comes only once.
    """

    outcome: Outcome
    failure: FailureClass = FailureClass.NONE
    evidence: str = ""
    step: int | None = None
    job: str = ""
    restart: int = 0
    host: str = ""
    time: float = field(default_factory=time.time)
    source: str = ""
    nodes: tuple[str, ...] = ()
    judged_by: str = ""
    attempt: str = ""


def write(stage: StagePaths, verdict: Verdict) -> None:
    """Write the verdict of its job and restart, without the secrets that its evidence may quote."""
    files.write_json(stage.verdict(verdict.job, verdict.restart), redaction.shown(asdict(verdict), stage.secrets))


def read(path: Path) -> Verdict | None:
    """The verdict in ``path``; None where there is none.

    Raises:
        ValueError: the file is not a verdict.
    """
    value = files.read_json_or_none(path)
    try:
        return None if value is None else strict.build(Verdict, value)
    except ValueError as error:
        raise ValueError(f"{path}: not a verdict: {error}") from error


def of_attempt(path: Path, attempt: str = "") -> Verdict | None:
    """The verdict in ``path``; None where there is none, or a damaged one, or one of another ``attempt``: ids of jobs
    are given again where a controller has lost its state."""
    try:
        found = read(path)
    except ValueError as error:
        strict.passed_over(error)
        return None
    return None if found is None or (attempt and found.attempt not in ("", attempt)) else found


def all_of(stage: StagePaths) -> list[Verdict]:
    """All verdicts of a stage, oldest first."""
    found = [of_attempt(path) for path in stage.root.glob("verdict-*_*.json")]
    return sorted((verdict for verdict in found if verdict is not None), key=lambda verdict: verdict.time)


def classify(error: BaseException, inputs: Iterable[Path] = ()) -> FailureClass:
    """Failure class of an exception. An exception of a back end may carry its own as attribute ``failure``.

    A file that is not found is a missing input only where it lies in one of ``inputs`` (directories or files); any
    other is a fault in the code or its environment.
    """
    own = getattr(error, "failure", None)
    if isinstance(own, FailureClass):
        return own
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureClass.STORAGE_FULL
    if patience.passes(error) and not patience.may_be_a_connection(error):
        return FailureClass.FILE_SYSTEM
    if isinstance(error, FileNotFoundError) and _is_within(error.filename, inputs):
        return FailureClass.MISSING_INPUT
    for kind, failure in _CLASSES:
        if isinstance(error, kind):
            return failure
    return FailureClass.CODE_ERROR


def _is_within(name: object, inputs: Iterable[Path]) -> bool:
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    path = Path(os.path.abspath(os.fsdecode(name)))
    return any(path == given or given in path.parents for given in inputs)


_CLASSES: tuple[tuple[type[BaseException], FailureClass], ...] = (
    (ClaimLost, FailureClass.CLAIM_LOST),
    (SealBroken, FailureClass.BROKEN_INPUT),
    (MemoryError, FailureClass.OUT_OF_MEMORY),
)
