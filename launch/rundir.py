"""Runs in a workspace: making one, finding one by the beginning of its id, and where workspaces are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from jobs.core import attempts, files
from jobs.core.paths import RunPaths, Workspace
from launch import planfile, snapshot, worktree
from launch.errors import InputError
from launch.journal import Event, Journal
from launch.plan import Plan
from launch.profile import Profile, ProfileFile, read_profile

if TYPE_CHECKING:
    from launch.pipeline import PipelineFile

ID_LENGTH = 5
LOCK_STALE_SECONDS = 600.0
LOCK_TRY_SECONDS = 5.0


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
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "overnight" / "workspaces"


def known_workspaces(option: Path | None) -> list[Workspace]:
    """Where to look for a run: the option alone, else the default and every workspace that this user submitted to."""
    if option is not None:
        return [Workspace(option.absolute())]
    found = [default_workspace()]
    with contextlib.suppress(OSError):
        found += [Path(line) for line in _known_file().read_text(encoding="utf-8").splitlines() if line]
    return [Workspace(path) for path in dict.fromkeys(found) if (path / "runs").is_dir()]


def remember(workspace: Workspace) -> None:
    """Note the workspace for later look-ups of runs; not being able to is no error."""
    path = _known_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if str(workspace.root) not in known:
            files.write_atomic(path, "\n".join([*known, str(workspace.root)]) + "\n")


@dataclass(frozen=True)
class Run:
    """A run and the workspace that it lies in."""

    workspace: Workspace
    id: str

    @property
    def paths(self) -> RunPaths:
        return self.workspace.run(self.id)

    @property
    def journal(self) -> Journal:
        return Journal(self.paths.journal)

    def plan(self) -> Plan:
        """Raises:
        InputError: the run has none.
        """
        return planfile.load(self.paths.plan)

    def profile(self) -> Profile:
        """Raises:
        InputError: the run has none.
        """
        if not self.paths.plan.exists():  # written last: what is missing is better said of the plan
            self.plan()
        return read_profile(self.paths.profile).profile


def create(workspace: Workspace, pipeline: PipelineFile, profile: ProfileFile, plan: Plan) -> Run:
    """Make the directory of a new run with everything that its jobs need; nothing is submitted yet.

    Raises:
        InputError: the workspace cannot be written.
    """
    try:
        files.make_directory(workspace.runs)
        files.make_directory(workspace.store)
        run = _new(workspace)
    except OSError as error:
        raise InputError(
            f"cannot write the workspace {workspace.root}: {error.strerror}", hint="choose one: --workspace DIR"
        ) from error
    paths = run.paths
    files.write_atomic(paths.pipeline, yaml.safe_dump(pipeline.data, sort_keys=False, allow_unicode=True))
    files.write_atomic(paths.profile, yaml.safe_dump(profile.data, sort_keys=False, allow_unicode=True))
    paths.stages.mkdir()
    paths.toolkit.parent.mkdir()
    snapshot.take(paths.toolkit)
    code: dict[str, object] = {}
    if pipeline.pipeline.code is not None:
        tree, data = pipeline.resolve(pipeline.pipeline.code), plan.data_paths
        taken = worktree.take(tree, workspace, data)
        paths.user_code.symlink_to(os.path.relpath(taken.path, paths.user_code.parent))
        if not taken.path.is_dir():  # a gc took it before the link was there to stop it
            taken = worktree.take(tree, workspace, data)
        if plan.code not in (None, taken.digest):
            raise InputError(f"{tree} was changed while the chain was planned", hint="the same command again")
        plan = replace(plan, code=taken.digest)
        code = {"code": taken.digest, "code_files": taken.files, "uncommitted": taken.uncommitted}
        print(f"code: {taken}", file=sys.stderr)
    run.journal.write(
        Event.CREATED, run=run.id, pipeline=str(pipeline.path.absolute()), profile=str(profile.path), **code
    )
    planfile.save(paths.plan, plan)
    remember(workspace)
    return run


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
    found = [run for run in runs if run.id.startswith(abbreviation)]
    exact = [run for run in found if run.id == abbreviation]
    found = exact or found
    if len(found) == 1:
        return found[0]
    ids = ", ".join(run.id for run in (found or runs)[:8])
    if found:
        raise InputError(f"{abbreviation!r} is the beginning of several runs: {ids}")
    raise InputError(f"there is no run {abbreviation!r}; the newest: {ids}", hint="overnight list")


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Let one ``overnight`` at a time change a run (two login nodes share it).

    A lock file made with exclusive creation: flock is not dependable on NFS and Lustre. A lock whose process is dead
    (same host), or that is older than ten minutes, is taken over.

    Raises:
        RunBusy: another process holds it.
    """
    path = run.paths.lock
    me = os.getpid()
    mine = json.dumps({"host": socket.gethostname(), "pid": me, "born": _born(me), "time": time.time()})
    end = time.monotonic() + LOCK_TRY_SECONDS
    while not files.create_exclusive(path, mine):
        held = _read(path)
        if held is not None and not _is_stale(held):
            raise RunBusy(
                f"another overnight is working on run {run.id}: {held.strip()}",
                hint=f"wait for it; if it is dead, remove {path}",
            )
        if time.monotonic() > end:
            raise RunBusy(f"run {run.id} is locked again and again by others that were quicker", hint="try again")
        if held is not None:
            _break(path, held)
    try:
        yield
    finally:
        if _read(path) == mine:  # else it was taken over
            path.unlink(missing_ok=True)


def stale_lock(run: Run) -> str | None:
    """What the lock of a process that is gone holds; None where there is no lock, or a living one."""
    held = _read(run.paths.lock)
    return held.strip() if held is not None and _is_stale(held) else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _is_stale(held: str) -> bool:
    try:
        value = json.loads(held)
        if value["host"] == socket.gethostname():
            return not process_alive(int(value["pid"])) or value.get("born") != _born(int(value["pid"]))
        return time.time() - float(value["time"]) > LOCK_STALE_SECONDS
    except (ValueError, KeyError, TypeError):
        return True


def _break(path: Path, held: str) -> None:
    """Take a stale lock away: of all that found it, on this host one at a time, and only that very lock. Who is slower
    must not take away the lock that the faster one has made since.

    The turn is an abstract socket name, which the kernel takes back from a process that dies.
    """
    with socket.socket(socket.AF_UNIX) as turn:
        try:
            turn.bind(f"\0overnight lock {hashlib.sha256(os.fsencode(path)).hexdigest()}")
        except OSError:
            time.sleep(0.01)
            return
        if _read(path) == held:
            path.unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks: tells it from a later one with its number. None where unknown."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` after the command's name, the state first; empty where there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def process_alive(pid: int) -> bool:
    """Whether a process of that id exists on this host and is no zombie."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])
