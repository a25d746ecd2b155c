"""The chains of a sweep: runs that were made together. Which they are is written once, before any is submitted.

``family.json`` appears when every run of it is whole, so a family that is there can always be brought forward; one that
was cut off before has submitted nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from jobs.core import attempts, files, strict
from jobs.core.paths import FamilyPaths, Workspace
from launch.base import lock
from launch.base.errors import InputError
from launch.config.ranking import Ranking
from launch.runs import rundir
from launch.runs.journal import Event, Journal
from launch.runs.rundir import Run

PREFIX = "f-"
"""Of a family's id; no run's id begins so."""

SCHEMA = 1


@dataclass(frozen=True)
class Member:
    """One chain: its run, and what was set in it, by the keys of the pipeline."""

    run: str
    values: dict[str, Any]


@dataclass(frozen=True)
class FamilyRecord:
    """``family.json``. ``source``: the pipeline file; ``keys``: those that are swept, in the order of the file;
    ``at_once``: the most chains in the queue, None: all."""

    schema: int
    pipeline: str
    source: str
    profile: str
    keys: tuple[str, ...]
    members: tuple[Member, ...]
    at_once: int | None = None
    ranking: Ranking | None = None


@dataclass(frozen=True)
class Family:
    """A family and the workspace that it lies in."""

    workspace: Workspace
    id: str

    @cached_property
    def paths(self) -> FamilyPaths:
        return self.workspace.family(self.id)

    @property
    def journal(self) -> Journal:
        return Journal(self.paths.journal)

    @cached_property
    def record(self) -> FamilyRecord:
        """What was made. Raises InputError: it was cut off before, or the file is damaged."""
        try:
            found = strict.build(FamilyRecord, files.read_json(self.paths.record))
        except FileNotFoundError:
            raise InputError(
                f"family {self.id} was cut off before anything was submitted", hint="submit the pipeline again"
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{self.paths.record}: {error}") from error
        if found.schema != SCHEMA:
            raise InputError(f"{self.paths.record}: schema {found.schema}, this version reads {SCHEMA}")
        return found

    @property
    def runs(self) -> list[Run]:
        """The run of each member."""
        return [Run(self.workspace, member.run) for member in self.record.members]


def is_id(text: str | None) -> bool:
    """Whether a name is that of a family and not of a run."""
    return text is not None and text.startswith(PREFIX)


def begin(workspace: Workspace) -> Family:
    """A new family without a member. Raises OSError: the workspace cannot be written."""
    while True:
        family = Family(workspace, PREFIX + attempts.new_token(rundir.ID_LENGTH))
        for directory in (workspace.runs, workspace.families):
            files.make_directory(directory)
        with contextlib.suppress(FileExistsError):
            family.paths.root.mkdir()
            return family


def write(family: Family, record: FamilyRecord) -> None:
    """The record, written: from now on there is this family."""
    family.journal.write(Event.CREATED, family=family.id, runs=[member.run for member in record.members])
    files.write_atomic(family.paths.record, files.json_text(asdict(record)))
    files.fsync_directory(family.workspace.families)


def all_families(workspaces: Sequence[Workspace]) -> list[Family]:
    """Every family of the workspaces, newest first."""
    found = [
        Family(workspace, entry.name)
        for workspace in workspaces
        if workspace.families.is_dir()
        for entry in workspace.families.iterdir()
        if entry.is_dir() and is_id(entry.name)
    ]
    return sorted(found, key=lambda family: family.paths.root.stat().st_mtime, reverse=True)


def find(abbreviation: str, workspaces: Sequence[Workspace]) -> Family:
    """The family whose id begins with ``abbreviation``. Raises InputError: none, or more than one."""
    return rundir.by_beginning(abbreviation, all_families(workspaces), "family", "families")


def of_run(run: Run) -> Family | None:
    """The family that a run belongs to; None: it is of none, or that was cut off before it was one."""
    try:
        name = strict.content(run.paths.family).decode().strip()
    except (OSError, ValueError):
        return None
    family = Family(run.workspace, name)
    return family if is_id(name) and "/" not in name and family.paths.record.exists() else None


def is_cancelled(entries: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the user has cancelled the family and not resumed it since. ``entries``: of its journal."""
    said = False
    for entry in entries:
        if entry["event"] == Event.CANCELLED:
            said = True
        elif entry["event"] == Event.DEFERRED and entry.get("by") is None:
            said = False
    return said


def is_busy(family: Family) -> bool:
    """Whether an ``overnight`` that may be alive brings the family forward at this moment."""
    holder, _ = lock.read(family.paths.lock)
    return holder is not None and lock.is_gone(holder) is not True


@contextlib.contextmanager
def locked(family: Family) -> Iterator[None]:
    """Let one ``overnight`` at a time bring a family forward. Raises RunBusy: another does."""
    with rundir.held(family.paths.lock, "family", family.id):
        yield
