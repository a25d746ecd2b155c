"""Attempts at a store entry: numbered, created with exclusive creation, so that two submitters cannot both be next.

``attempts/0001.json`` says who submits (run, stage, token, job name): the durable *intent*, written before sbatch.
``attempts/0001.jobs.json`` holds the job ids that sbatch answered. The highest number is the current attempt; jobs of
an older one may no longer publish.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.core import files, strict
from jobs.core.paths import StorePaths

_NAME = re.compile(r"(\d{4})\.json\Z")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True)
class Attempt:
    """One submission of a stage. ``carrier`` is ``slurm`` or ``local``; ``job_names`` has one unique name a link."""

    number: int
    token: str
    run: str
    stage: str
    stage_dir: str
    carrier: str
    job_names: tuple[str, ...]
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    time: float = field(default_factory=time.time)

    @property
    def links(self) -> int:
        return len(self.job_names)


def new_token(length: int = 6) -> str:
    """Random token of letters and digits that are safe in file and Slurm job names."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def current(store: StorePaths, fresh: bool = False) -> Attempt | None:
    """The newest attempt, or None. ``fresh``: as the server of the file system has them, not a cached listing.

    An empty file is no attempt: its maker died between its name and its content (no hard links there). One that is
    damaged is an attempt of which nothing else is known: no job can hold it, and the next one gets a later number.
    """
    path = next((path for path in reversed(_paths(store, fresh)) if not files.is_abandoned(path)), None)
    return None if path is None else _read(path)


def newer(store: StorePaths, token: str) -> Attempt | None:
    """The attempt that has taken the place of one; None: it is the newest, as the server of the file system has them.

    A newest file that is damaged is that of ``token`` itself, if all others can be read and none of them is.
    """
    found = current(store, fresh=True)
    if found is None or found.token == token:
        return None
    if not found.token:
        known = [one.token for one in all_of(store)]
        if token not in known and known.count("") == 1:
            return None
    return found


def _paths(store: StorePaths, fresh: bool = False) -> list[Path]:
    try:
        names = files.fresh_names(store.attempts) if fresh else os.listdir(store.attempts)
    except FileNotFoundError:
        return []
    numbers = [int(found[1]) for found in map(_NAME.match, names) if found]
    return [store.attempt(number) for number in sorted(numbers)]


def _read(path: Path) -> Attempt:
    try:
        return strict.build(Attempt, files.read_created_json(path))
    except ValueError as error:
        strict.passed_over(error if str(path) in str(error) else f"{path}: not an attempt: {error}")
        return Attempt(int(path.stem), "", "", "", str(path.parent), "slurm", (), "", 0, 0.0)


def all_of(store: StorePaths) -> list[Attempt]:
    """Every attempt, oldest first."""
    return [_read(path) for path in _paths(store) if path.stat().st_size]


def before(store: StorePaths, token: str) -> list[Attempt]:
    """The attempts that came before one, newest first; none where that is not known."""
    known = all_of(store)
    tokens = [attempt.token for attempt in known]
    earlier = known[: tokens.index(token)] if token in tokens else []
    return [attempt for attempt in reversed(earlier) if attempt.token]


def tokens_before(store: StorePaths, token: str) -> set[str]:
    """Tokens of the attempts that came before one; empty where that is not known."""
    return {attempt.token for attempt in before(store, token)}


def other_owner(store: StorePaths, attempt: Attempt) -> str:
    """Name of the user who submitted an attempt, if that is another one: Slurm shows us our own jobs only."""
    try:
        owner = store.attempt(attempt.number).stat().st_uid
    except FileNotFoundError:  # moved aside meanwhile
        return ""
    return "" if owner == os.geteuid() else user_name(owner)


def user_name(number: int) -> str:
    """As the system calls a user; the number where it has no name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def open_next(store: StorePaths, attempt: Attempt) -> bool:
    """Make ``attempt`` the current one; False if somebody else opened that number first."""
    files.make_directory(store.attempts, levels=2)  # the intent is no better on disk than the way to it
    return files.create_exclusive(store.attempt(attempt.number), json.dumps(asdict(attempt), sort_keys=True) + "\n")


def job_ids(store: StorePaths, attempt: Attempt) -> dict[int, str]:
    """Known job ids by link; empty where sbatch's answer was never recorded."""
    path = store.attempt_jobs(attempt.number)
    try:
        value = strict.convert(dict[str, str], files.read_json_or_none(path) or {}, "jobs")
        return {int(link): job for link, job in value.items()}
    except ValueError as error:
        strict.passed_over(f"{path}: {error}")
        return {}


def record_job(store: StorePaths, attempt: Attempt, link: int, job: str) -> None:
    """Remember the id that sbatch answered for a link."""
    known = job_ids(store, attempt)
    files.write_json(store.attempt_jobs(attempt.number), {**known, link: job})
