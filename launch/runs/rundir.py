"""Runs in a workspace: making one, finding one by the beginning of its id, and where workspaces are."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import yaml

from jobs.core import attempts, files, strict
from jobs.core.files import FileState
from jobs.core.paths import RunPaths, Workspace
from launch.base import lock
from launch.base.errors import InputError
from launch.base.text import user_place
from launch.config.profile import Profile
from launch.config.profile_file import ProfileFile, read_profile
from launch.inputs import toolkit, user_code
from launch.plan import file
from launch.plan.model import Plan
from launch.runs.journal import Event, Journal

if TYPE_CHECKING:
    from launch.config.pipeline_file import PipelineFile

ID_LENGTH = 5
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
LOCK_STALE_SECONDS = 600.0
"""Untouched for so long a lock of another host is shown as left behind."""

LOCK_SILENT_SECONDS = 90.0
"""Watched for so long without a touch (there is one every ten seconds) it is taken over."""


class HasId(Protocol):
    """A run or a family of runs."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=HasId)


class RunBusy(InputError):
    """Another ``overnight`` is changing the run."""


def default_workspace() -> Path:
    """``$OVERNIGHT_WORKSPACE``, else ``~/overnight``."""
    chosen = os.environ.get("OVERNIGHT_WORKSPACE")
    return Path(chosen).absolute() if chosen else Path.home() / "overnight"


def workspace_for(profile: Profile | None, option: Path | None) -> Workspace:
    """The option, else the environment, else the profile, else ``~/overnight``."""
    if option is not None:
        return Workspace(option.absolute())
    if profile is not None and profile.workspace is not None and "OVERNIGHT_WORKSPACE" not in os.environ:
        return Workspace(profile.workspace)
    return Workspace(default_workspace())


def _known_file() -> Path:
    return user_place("STATE", ".local/state") / "workspaces"


def known_workspaces(option: Path | None) -> list[Workspace]:
    """Where to look for a run: the option alone, else the default and every workspace that this user submitted to."""
    if option is not None:
        found = [option.absolute()]
    else:
        found = [default_workspace(), *_remembered()]
    return [Workspace(path) for path in dict.fromkeys(found) if (path / "runs").is_dir()]


def _remembered() -> list[Path]:
    with contextlib.suppress(OSError, ValueError):
        return [Path(line) for line in strict.content(_known_file()).decode(errors="replace").splitlines() if line]
    return []


def remember(workspace: Workspace) -> None:
    """Note the workspace for later look-ups of runs; not being able to is no error."""
    path = _known_file()
    with contextlib.suppress(OSError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        known = strict.content(path).decode(errors="replace").splitlines() if path.exists() else []
        if str(workspace.root) not in known:
            files.write_atomic(path, "\n".join([*known, str(workspace.root)]) + "\n")


@dataclass(frozen=True)
class Run:
    """A run and the workspace that it lies in."""

    workspace: Workspace
    id: str

    @cached_property
    def paths(self) -> RunPaths:
        return self.workspace.run(self.id)

    @property
    def journal(self) -> Journal:
        return Journal(self.paths.journal)

    def plan(self) -> Plan:
        """What was planned at the submission. Raises InputError: the run has none."""
        return _plan(self.paths.plan, files.state(self.paths.plan))

    def profile(self) -> Profile:
        """The profile of the submission. Raises InputError: the run has none."""
        if not self.paths.plan.exists():  # written last: what is missing is better said of the plan
            self.plan()
        return _profile(self.paths.profile, files.state(self.paths.profile))


@lru_cache(maxsize=4)
def _plan(path: Path, state: FileState | None) -> Plan:
    """Read once while the file is the same: advice is given for each stage of a run."""
    return file.load(path)


@lru_cache(maxsize=4)
def _profile(path: Path, state: FileState | None) -> Profile:
    return read_profile(path, kept=True).profile


def create(
    workspace: Workspace, pipeline: PipelineFile, profile: ProfileFile, plan: Plan, family: str | None = None
) -> Run:
    """A new run: its directory with everything that its jobs need; nothing is submitted yet. ``family``: id of the
    sweep that it belongs to.

    Raises:
        InputError: the workspace cannot be written, or is full: then nothing of the run is left.
    """
    run: Run | None = None
    try:
        files.make_directory(workspace.runs)
        files.make_directory(workspace.store)
        run = _new(workspace)
        _fill(run, pipeline, profile, plan, family)
    except OSError as error:
        if run is not None:
            shutil.rmtree(run.paths.root, ignore_errors=True)
        # Of many copies that failed (shutil.Error) the first.
        said = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise InputError(
            f"cannot write the workspace {workspace.root}: {said}",
            hint="make room there, or choose another: --workspace DIR",
        ) from error
    remember(workspace)
    return run


def _fill(run: Run, pipeline: PipelineFile, profile: ProfileFile, plan: Plan, family: str | None) -> None:
    """Write what the jobs of a new run need."""
    paths, workspace = run.paths, run.workspace
    for path, read in ((paths.pipeline, pipeline.data), (paths.profile, profile.data)):
        files.write_atomic(path, yaml.dump(read, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))
    if family is not None:
        files.write_atomic(paths.family, f"{family}\n")
    paths.stages.mkdir()
    toolkit.take(workspace, paths.toolkit)
    code: dict[str, object] = {}
    if pipeline.pipeline.code is not None:
        tree, data = pipeline.resolve(pipeline.pipeline.code), plan.data_paths
        taken = user_code.take(tree, workspace, data)
        paths.user_code.symlink_to(os.path.relpath(taken.path, paths.user_code.parent))
        if not taken.path.is_dir():  # a gc took it before the link was there to stop it
            taken = user_code.take(tree, workspace, data)
        files.fsync_directory(paths.user_code.parent)
        if plan.code not in (None, taken.digest):
            raise InputError(f"{tree} was changed while the chain was planned", hint="the same command again")
        plan = replace(plan, code=taken.digest)
        code = {"code": taken.digest, "code_files": taken.files, "uncommitted": taken.uncommitted}
        print(f"code: {taken}", file=sys.stderr)
    known = {"pipeline": str(pipeline.path.absolute()), "profile": str(profile.path.absolute())}
    run.journal.write(Event.CREATED, run=run.id, **known, set=pipeline.overrides, **code)
    file.save(paths.plan, plan)


def _new(workspace: Workspace) -> Run:
    while True:
        run = Run(workspace, attempts.new_token(ID_LENGTH))
        try:
            run.paths.root.mkdir()
            files.fsync_directory(workspace.runs)  # its journal is no better on disk than the way to it
            return run
        except FileExistsError:
            continue


def all_runs(option: Path | None) -> list[Run]:
    """Every run of the known workspaces, newest first."""
    found = [
        Run(workspace, entry.name)
        for workspace in known_workspaces(option)
        for entry in workspace.runs.iterdir()
        if entry.is_dir()
    ]
    return sorted(found, key=lambda run: run.paths.root.stat().st_mtime, reverse=True)


def find(abbreviation: str | None, option: Path | None = None) -> Run:
    """The run whose id begins with ``abbreviation``; None: the newest.

    Raises:
        InputError: none, or more than one.
    """
    runs = all_runs(option)
    if not runs:
        raise InputError("there are no runs yet", hint="overnight submit PIPELINE --cluster NAME")
    if abbreviation is None:
        return runs[0]
    return by_beginning(abbreviation, runs, "run", "runs")


def by_beginning(abbreviation: str, known: Sequence[T], what: str, several: str) -> T:
    """The one of ``known`` (newest first) whose id is, or begins with, ``abbreviation``.

    Raises:
        InputError: none, or more than one.
    """
    begun = [one for one in known if one.id.startswith(abbreviation)]
    found = [one for one in begun if one.id == abbreviation] or begun
    if len(found) == 1:
        return found[0]
    ids = ", ".join(one.id for one in (found or known)[:8]) or "there are none"
    if found:
        raise InputError(f"{abbreviation!r} is the beginning of several {several}: {ids}")
    raise InputError(f"there is no {what} {abbreviation!r}; the newest: {ids}", hint="overnight list")


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Let one ``overnight`` at a time change a run (two login nodes share it).

    A lock whose process is dead is taken over: on this host at once, on another after nobody has touched it for
    ``LOCK_SILENT_SECONDS`` of our watching.

    Raises:
        RunBusy: another process holds it, and lives.
    """
    with held(run.paths.lock, "run", run.id):
        yield


@contextlib.contextmanager
def held(path: Path, what: str, name: str) -> Iterator[None]:
    """Hold the lock of a run or a family (``what``). Raises RunBusy: another process holds it, and lives."""

    def busy(holder: str) -> None:
        raise RunBusy(
            f"another overnight is working on {what} {name}: {holder}",
            hint=f"wait for it; if it is dead, remove {path}",
        )

    def waiting(holder: str) -> None:
        text = f"the {what} is locked by {holder}; watching for at most {LOCK_SILENT_SECONDS:.0f} s whether that lives"
        print(text, file=sys.stderr, flush=True)

    with lock.SharedLock(path, waiting, busy, LOCK_SILENT_SECONDS):
        yield


def stale_lock(run: Run) -> str | None:
    """Who left a lock behind: a process that is gone, or one of another host that has not touched it for
    ``LOCK_STALE_SECONDS`` (by the clock of this one, so that it may yet live). None: no lock, or a living one."""
    holder, touched = lock.read(run.paths.lock)
    if holder is None or not isinstance(touched, int):
        return None
    gone = lock.is_gone(holder)
    silent = time.time() - touched / 1e9 > LOCK_STALE_SECONDS
    return lock.describe(holder) if gone or (gone is None and silent) else None
