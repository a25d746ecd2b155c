"""What a workspace holds and no run needs: snapshots of code, results that no run names, what was half made.

Safe against a submission at the same moment without a lock that it would have to take: a thing is renamed aside first,
then the runs are looked at once more, and it is put back if one of them has come to name it. A submission that looks in
between finds nothing there and makes it again. Killed in between, the next one puts it back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.core import attempts
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.inputs import user_code
from launch.plan import file
from launch.runs.rundir import Run

HALF_MADE_SECONDS = 24 * 3600.0
"""A half-made thing is left alone this long: its maker may be at work on another host."""

ASIDE = "gc-"
DOWNLOAD = "download-"
_ASIDE_CODE = re.compile(r"gc-[a-z0-9]+-([0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Removal:
    """One thing removed, or to be removed. ``bytes``: its size on disk, without following links."""

    path: Path
    reason: str
    bytes: int


@dataclass(frozen=True)
class Needed:
    """Names that runs need: directories of the store, and digests of code. ``unknown``: runs whose plan cannot be read;
    while there is one nothing of the store can be called unneeded."""

    store: frozenset[str]
    code: frozenset[str]
    unknown: tuple[str, ...]


def needed(workspace: Workspace, only: Collection[str] | None = None, but: Collection[str] = ()) -> Needed:
    """What the runs of the workspace name, live or ended: a run that is there can be resumed. ``only``: these runs
    alone; ``but``: not these."""
    store: set[str] = set()
    code: set[str] = set()
    unknown = []
    for directory in sorted(workspace.runs.iterdir()) if workspace.runs.is_dir() else []:
        if not directory.is_dir() or directory.name in but or (only is not None and directory.name not in only):
            continue
        run = Run(workspace, directory.name)
        for link in (run.paths.toolkit, run.paths.user_code):
            with contextlib.suppress(OSError):
                code.add(Path(os.readlink(link)).name)
        try:
            plan = file.load(run.paths.plan)
        except (InputError, OSError, ValueError):
            unknown.append(run.id)
            continue
        for stage in plan.stages:
            store.add(stage.store(workspace).root.name)
            store |= {one.store(workspace).root.name for one in stage.inputs.values()}
    return Needed(frozenset(store), frozenset(code), tuple(unknown))


def collect(workspace: Workspace, keep_days: float, dry_run: bool) -> tuple[list[Removal], Needed]:
    """Remove what no run needs and nobody has touched for ``keep_days``.

    Of the store only what was made by stages: downloads are kept: they may no longer be available.
    """
    found = needed(workspace)
    if not dry_run:
        put_back(workspace, found.code)
    unneeded = [Removal(path, reason, size_of(path)) for path, reason in _candidates(workspace, found, keep_days)]
    return unneeded if dry_run else remove(workspace, unneeded), found


def put_back(workspace: Workspace, code: Collection[str]) -> None:
    """Snapshots of these digests that were moved aside by one that was killed then, if they are still whole. A result
    is not: what is missing is made again, and to verify it would read all of it."""
    for path in _entries(workspace.code):
        match = _ASIDE_CODE.match(path.name)
        if match is None or match[1] not in code or workspace.code_snapshot(match[1]).exists():
            continue
        with contextlib.suppress(OSError):  # removed meanwhile by the one that moved it
            if user_code.digest_of(path, user_code.listing(path)) == match[1]:
                os.rename(path, workspace.code_snapshot(match[1]))


def _candidates(workspace: Workspace, found: Needed, keep_days: float) -> list[tuple[Path, str]]:
    now, kept = time.time(), keep_days * 86400
    result = []
    for path in _entries(workspace.code):
        if path.name.startswith(("partial-", ASIDE)):
            if _is_older(path, HALF_MADE_SECONDS, now):
                result.append((path, "half made"))
        elif path.name not in found.code and _is_older(path, kept, now):
            result.append((path, "code of no run"))
    for path in _entries(workspace.store):
        if path.name.startswith(ASIDE):
            if _is_older(path, HALF_MADE_SECONDS, now):
                result.append((path, "half removed"))
        elif (
            not found.unknown
            and not path.name.startswith(DOWNLOAD)
            and path.name not in found.store
            and _is_older(path, kept, now)
        ):
            result.append((path, "result of no run"))
    return result


def remove(workspace: Workspace, unneeded: Sequence[Removal]) -> list[Removal]:
    """Those that were removed; not what a run has come to need. The runs are read once more, not once for each."""
    aside: list[tuple[Removal, Path]] = []
    for one in unneeded:
        path = one.path
        if not path.name.startswith(ASIDE):
            path = path.with_name(f"{ASIDE}{attempts.new_token(12)}-{path.name}")
            try:
                os.rename(one.path, path)
            except FileNotFoundError:
                continue  # by another gc
        aside.append((one, path))
    again = needed(workspace) if aside else Needed(frozenset(), frozenset(), ())
    kept = again.store | again.code
    removed = []
    for one, path in aside:
        in_store = one.path.parent == workspace.store
        if path != one.path and (one.path.name in kept or (in_store and again.unknown)):
            with contextlib.suppress(OSError):  # made again meanwhile: that one counts
                os.rename(path, one.path)
                continue
        if in_store:
            shutil.rmtree(path, ignore_errors=True)  # of a half removed one another gc may be at the same
        else:
            user_code.remove(path)
        removed.append(one)
    return removed


def _entries(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return [directory / name for name in sorted(one.name for one in entries if one.is_dir(follow_symlinks=False))]


def _is_older(path: Path, seconds: float, now: float) -> bool:
    """Whether neither it nor anything directly in it was changed for so long, by the clock of the file system; what
    another one has removed meanwhile is not. What changed itself is not looked into."""
    with contextlib.suppress(OSError):
        if now - path.lstat().st_ctime > seconds:
            return all(now - entry.stat(follow_symlinks=False).st_ctime > seconds for entry in os.scandir(path))
    return False


def size_of(path: Path) -> int:
    """Bytes on disk, without following links."""
    total = 0
    for root, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
