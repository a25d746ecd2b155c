"""The code that a run executes: a snapshot of our ``jobs`` and ``data_prep`` as they are now.

A later upgrade of the toolkit must not change what a queued job does.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from jobs.core import attempts, files
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.inputs import user_code

PACKAGES = ("jobs", "data_prep")


def package_directory(name: str) -> Path:
    """Where an installed package of ours lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"package {name!r} is not installed beside launch")
    return Path(spec.origin).parent


def installed_boot() -> Path:
    """The start script as installed (used for probing before a run exists)."""
    return package_directory("jobs") / "boot.py"


def take(workspace: Workspace, link: Path) -> None:
    """Make ``link`` lead to a snapshot of the packages with the start script beside them.

    It lies under the name of its content, so that all runs of one version of the toolkit share it.
    """
    snapshot = _snapshot(workspace)
    files.make_directory(link.parent)
    link.symlink_to(os.path.relpath(snapshot, link.parent))
    if not snapshot.is_dir():  # a gc took it before the link was there to stop it
        _snapshot(workspace)
    files.fsync_directory(link.parent)


def refuse_changed(link: Path) -> None:
    """Raises:
    InputError: the snapshot that a run uses is not what was taken. (A run of an older version has its own copy.)
    """
    if link.is_symlink() and not user_code.is_whole(link.resolve()):
        raise InputError(
            f"{link.resolve()}, the code of this run, was changed or removed since it was taken",
            hint="submit the pipeline again: finished stages are used again",
        )


def _snapshot(workspace: Workspace) -> Path:
    sources = {
        os.path.join(name, path): os.path.join(package, path)
        for name in PACKAGES
        for package in [package_directory(name)]
        for path in user_code.listing(package)
    } | {"overnight_job.py": str(installed_boot())}
    known = workspace.code_snapshot(user_code.digest_of_files(sources))
    if user_code.is_whole(known):
        files.fsync_directory(workspace.code)  # the process that made it may have ended before this
        return known
    files.make_directory(workspace.code)
    partial = workspace.code / f"partial-{attempts.new_token(12)}"
    try:
        for name, source in sources.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        # Of the copy: a package may be upgraded while it is read.
        return user_code.publish(partial, workspace, user_code.digest_of(partial, list(sources)))
    finally:
        user_code.remove(partial)
