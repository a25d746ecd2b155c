"""The code that a run executes: our ``jobs`` and ``data_prep`` as they are now, copied into the run.

A later upgrade of the toolkit must not change what a queued job does.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from jobs.core import files

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


def take(toolkit: Path) -> None:
    """Copy the packages to ``toolkit`` (which must not exist yet) and write the start script beside them."""
    partial = toolkit.with_name(toolkit.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in PACKAGES:
        # Contents alone: for times and attributes of 150 files the kernel is asked as often again as for these.
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(package_directory(name), partial / name, ignore=ignored, copy_function=shutil.copyfile)
    shutil.copyfile(installed_boot(), partial / "overnight_job.py")
    files.flush_tree(partial)
    partial.rename(toolkit)
    files.fsync_directory(toolkit.parent)
