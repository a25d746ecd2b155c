"""Remove runs, with the results and code snapshots that no other run of the workspace names; downloads are kept.

The directory of a run is renamed first, so that it is gone at once for every other command. If this process is killed
then, ``launch.runs.gc`` removes the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.core import attempts
from jobs.core.paths import Workspace
from launch.runs import gc
from launch.runs.gc import Needed, Removal


@dataclass(frozen=True)
class RunRemoval:
    """What goes: ``directories`` of runs and families, and what nothing else names. ``unknown``: other runs whose plan
    cannot be read; while there is one no result is removed."""

    workspace: Workspace
    directories: tuple[Removal, ...]
    unneeded: tuple[Removal, ...]
    unknown: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Size of all of it on disk."""
        return sum(one.bytes for one in (*self.directories, *self.unneeded))


def of(workspace: Workspace, runs: Sequence[str], families: Iterable[Path] = ()) -> RunRemoval:
    """What goes with ``runs`` (ids); nothing is removed yet. ``families``: directories of sweeps that go, too."""
    own = gc.needed(workspace, only=runs)
    others = gc.needed(workspace, but=runs)
    places = [(workspace.run(run).root, "run") for run in runs]
    places += [(directory, "family") for directory in families]
    return RunRemoval(
        workspace,
        tuple(Removal(path, reason, gc.size_of(path)) for path, reason in places),
        tuple(_unneeded(workspace, own, others)),
        others.unknown,
    )


def _unneeded(workspace: Workspace, own: Needed, others: Needed) -> Iterable[Removal]:
    entries = sorted(own.store - others.store) if not others.unknown else []
    for name in entries:
        path = workspace.store / name
        if not name.startswith(gc.DOWNLOAD) and path.is_dir():
            yield Removal(path, "result", gc.size_of(path))
    for digest in sorted(own.code - others.code):
        path = workspace.code_snapshot(digest)
        if path.is_dir():
            yield Removal(path, "code", gc.size_of(path))


def remove(found: RunRemoval) -> RunRemoval:
    """What was removed: without what another run has come to need since ``of``."""
    aside = []
    for one in found.directories:
        path = found.workspace.store / f"{gc.ASIDE}{attempts.new_token(12)}-{one.path.name}"
        os.rename(one.path, path)
        aside.append(path)
    removed = gc.remove(found.workspace, found.unneeded)
    for path in aside:
        shutil.rmtree(path)
    return replace(found, unneeded=tuple(removed))
