"""Who may write a store entry: a claim made with exclusive creation before any work.

A submission carries an attempt token. The prologue of the job takes ``claims/<attempt>.<link>.<restart>``. Of two
copies of a job that Slurm accepted, one takes it and the other leaves. Whoever gives an attempt up (``resume`` after an
ambiguous sbatch) takes the attempt's first claim itself: from then on no copy of it can start work, and if the job was
faster the taking fails and the job is adopted. So the question "did it run?" has one answer, with or without sacct.

Within a claimed attempt the newest (link, restart) holds the entry; an older one, on a node presumed dead, finds that
out before it publishes anything.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.core import attempts, files, strict
from jobs.core.paths import StorePaths

_NAME = re.compile(r"(?P<attempt>[0-9a-z]+)\.(?P<link>\d{3})\.(?P<restart>\d{5})\Z")
SUPERSEDED = "superseded"
DAMAGED = "damaged"


class ClaimLost(RuntimeError):
    """Another job or a later restart holds the store entry; nothing may be published."""


@dataclass(frozen=True)
class Claim:
    """One start of one job on one attempt. ``job`` is the Slurm job id, or ``local-<pid>``."""

    attempt: str
    link: int
    restart: int
    job: str
    host: str
    time: float

    @property
    def order(self) -> tuple[int, int]:
        return (self.link, self.restart)


def read(path: Path) -> Claim:
    """The claim in a file. Of one that is damaged its name says which start it is of, and ``job`` is ``DAMAGED``."""
    try:
        return strict.build(Claim, files.read_created_json(path))
    except ValueError as error:
        found = _NAME.match(path.name)
        if found is None:
            raise
        strict.passed_over(error if str(path) in str(error) else f"{path}: not a claim: {error}")
        return Claim(found["attempt"], int(found["link"]), int(found["restart"]), DAMAGED, "", path.stat().st_mtime)


def of_attempt(store: StorePaths, attempt: str, fresh: bool = False) -> list[Claim]:
    """Claims of one attempt, oldest first. ``fresh``: as the server of the file system has them, not a cached listing.

    An empty one is none yet, or never: its maker died between its name and its content (no hard links there).
    """
    try:
        names = sorted(files.fresh_names(store.claims) if fresh else os.listdir(store.claims))
    except FileNotFoundError:
        return []
    paths = [store.claims / name for name in names if (found := _NAME.match(name)) and found["attempt"] == attempt]
    return [read(path) for path in paths if not files.is_abandoned(path)]


def take(store: StorePaths, claim: Claim, has_begun: bool = False) -> Claim | None:
    """Take the claim; None if it is ours now, else the claim that was there first. ``has_begun``: an earlier start of
    this job was at work in this attempt, so that a damaged claim of it is its own.

    Restart 0 of a link names the owner of the link, also when the job that takes it was requeued before its first
    prologue ran; later restarts add their own file, so that the order of starts is on disk.
    """
    files.make_directory(store.claims)
    text = json.dumps(asdict(claim)) + "\n"
    for restart in sorted({0, claim.restart}):
        path = store.claim(claim.attempt, claim.link, restart)
        if not files.create_exclusive(path, text):
            holder = read(path)
            if holder.job != claim.job and not (has_begun and holder.job == DAMAGED):
                return holder
    # Of a chain of jobs a later link may be at work, if this is a copy of one that was cancelled while it waited.
    # Looked for last: a later link that takes its claim from here on takes over.
    mine = (claim.job, DAMAGED) if has_begun else (claim.job,)
    others = [found for found in of_attempt(store, claim.attempt) if found.job not in mine]
    return next((found for found in reversed(others) if found.link > claim.link), None)


def supersede(store: StorePaths, attempt: str, by: str, links: int = 1) -> Claim | None:
    """Bar every copy of ``attempt`` from starting; None if barred, else the claim of the job that had started.

    ``by`` is the new attempt's token, kept in the claim for the reader.
    """
    files.make_directory(store.claims)
    for found in of_attempt(store, attempt):
        if found.job != SUPERSEDED:
            return found
    for link in range(
        links
    ):  # also where some links are barred already: the process that began it may have been killed
        mark = Claim(attempt, link, 0, SUPERSEDED, by, time.time())
        path = store.claim(attempt, link, 0)
        if not files.create_exclusive(path, json.dumps(asdict(mark)) + "\n"):
            holder = read(path)
            if holder.job != SUPERSEDED:
                return holder
    return None


def check_held(store: StorePaths, claim: Claim) -> None:
    """Called before every publish.

    Raises:
        ClaimLost: a later start or a newer attempt holds the entry, or the claim file is gone.
    """
    newer = attempts.newer(store, claim.attempt)
    if newer is not None:
        by = f"{newer.token} of run {newer.run}" if newer.token else f"number {newer.number}, whose file is damaged"
        raise ClaimLost(f"{store.root.name}: attempt {claim.attempt} was replaced by {by}")
    held = of_attempt(store, claim.attempt, fresh=True)
    if not held:
        raise ClaimLost(f"{store.claims}: the claim of job {claim.job} restart {claim.restart} is gone")
    newest = max(held, key=lambda other: other.order)
    # A job requeued before its first prologue owns restart 0 with its own, higher, restart number inside.
    if newest.job not in (claim.job, DAMAGED) or newest.order > claim.order:
        raise ClaimLost(
            f"job {claim.job} restart {claim.restart} lost {store.root.name}: "
            f"job {newest.job} restart {newest.restart} on {newest.host} took it"
        )


def move(source: Path, target: Path) -> None:
    """Rename by way of a directory of one start. A later start takes that away before it works, so that the step cannot
    be done any more by one that is only taken for dead, whenever it comes to it.

    Raises:
        ClaimLost: it was taken away.
    """
    try:
        os.rename(source, target)
    except FileNotFoundError as error:
        raise ClaimLost(f"{source}: a later start has taken it away, or its directory") from error


def put(made: Path, target: Path, own: Path) -> None:
    """Make ``made`` the entry's ``target``; what lies there already goes to ``own`` first, the directory of the start.

    Raises:
        ClaimLost: as ``move``.
    """
    if target.exists():
        move(target, own / f"before-{target.name}-{time.monotonic_ns()}")
    move(made, target)
    files.fsync_directory(target.parent)
