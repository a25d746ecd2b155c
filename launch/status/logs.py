"""The logs of a stage over all its jobs and restarts, in the order in which they were written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.core import attempts
from jobs.core.paths import StagePaths, StorePaths

POLL_SECONDS = 0.5
CHUNK = 1 << 16

BATCH_SUFFIX = ".batch.log"
"""What the batch shell prints before the log of its restart is open: as a rule nothing."""


def directory(store: StorePaths, own: StagePaths) -> StagePaths:
    """Where the stage's newest attempt runs: in this run, or in the run that submitted it first."""
    current = attempts.current(store)
    return own if current is None else StagePaths(Path(current.stage_dir))


def all_of(stage: StagePaths) -> list[Path]:
    """Logs of a stage, oldest first: jobs by the time of their last line, the restarts of a job by number."""
    by_job: dict[str, list[tuple[int, Path]]] = {}
    for path in stage.logs.glob("*_*.log"):
        job, _, restart = path.name.removesuffix(".log").rpartition("_")
        if restart.isdigit():
            by_job.setdefault(job, []).append((int(restart), path))
    jobs = sorted(by_job.values(), key=lambda logs: max(path.stat().st_mtime for _, path in logs))
    return [path for logs in jobs for _, path in sorted(logs)]


def batch_output(stage: StagePaths) -> Path | None:
    """The newest output of a batch shell that has any: the place to look when there is no log."""
    found = [path for path in stage.logs.glob(f"*{BATCH_SUFFIX}") if path.stat().st_size]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def title(path: Path) -> str:
    """``==> job 12, restart 1 <==``"""
    job, _, restart = path.name.removesuffix(".log").rpartition("_")
    return f"==> job {job}" + (f", restart {restart}" if restart != "0" else "") + " <=="


def read(path: Path) -> Iterator[bytes]:
    """The content of a log, in pieces."""
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def last_lines(path: Path, count: int) -> Iterator[bytes]:
    """The last lines of a log; one without an end is one of them."""
    with open(path, "rb") as stream:
        yield from deque(stream, maxlen=max(0, count))


class Follower:
    """Passes on what is written, and changes to the next log after a requeue or a new start. ``where`` gives the stage
    directory, which a ``resume`` may move; ``write`` takes pieces of a log, ``announce`` the title of each."""

    def __init__(
        self, where: Callable[[], StagePaths], write: Callable[[bytes], None], announce: Callable[[str], None]
    ) -> None:
        self._where = where
        self._write = write
        self._announce = announce
        self._path: Path | None = None
        self._offset = 0

    def follow(self, is_over: Callable[[], bool]) -> None:
        """Until ``is_over``; what was written up to then is still handed out."""
        while True:
            over = is_over()  # before the last look, so that the last lines are not missed
            self._advance()
            if over:
                return
            time.sleep(POLL_SECONDS)

    def _advance(self) -> None:
        paths = all_of(self._where())
        if not paths:
            return
        if self._path is None:
            self._begin(paths[-1])
        while self._path is not None:
            self._drain(self._path)
            later = paths[paths.index(self._path) + 1 :] if self._path in paths else paths[-1:]
            if not later:
                return
            self._begin(later[0])

    def _begin(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._announce(title(path))

    def _drain(self, path: Path) -> None:
        with open(path, "rb") as stream:
            stream.seek(self._offset)
            while chunk := stream.read(CHUNK):
                self._write(chunk)
                self._offset += len(chunk)
