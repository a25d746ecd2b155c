"""Shards of a build as the tasks of an array of jobs: a list says which shard each task does.

::

    tasks.json        {"root", "phase", "shards"}: the task with index i does shards[i]
    error-00003.json  bad input that task 3 has found: {"error", "settings"}
    exit-3            exit code of task 3 where it is not 0; written by its batch shell

A task that succeeds leaves nothing here: the seal of its shard says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.common.errors import DataError, SettingsError
from jobs.core import files


def write(path: Path, root: Path, phase: str, shards: Sequence[int]) -> None:
    """Write the list of tasks for the build in ``root``."""
    files.write_json(path, {"root": str(root), "phase": phase, "shards": list(shards)})


def main(path: Path, task: int) -> int:
    """Do the shard of one task: 0, or 1 where its input is bad."""
    from data_prep.corpus.shard import work

    asked = files.read_json(path)
    try:
        work(Path(asked["root"]), asked["phase"], asked["shards"][task])
    except DataError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        files.write_json(_error(path, task), {"error": str(error), "settings": isinstance(error, SettingsError)})
        return 1
    return 0


def error(path: Path, task: int) -> DataError | None:
    """What a task has found wrong with its input; None: nothing."""
    found = files.read_json_or_none(_error(path, task))
    if found is None:
        return None
    return (SettingsError if found["settings"] else DataError)(found["error"])


def exit_code(path: Path, task: int) -> str | None:
    """How a task ended that failed; None: it has not failed, or Slurm ended it."""
    try:
        return path.with_name(f"exit-{task}").read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def _error(path: Path, task: int) -> Path:
    return path.with_name(f"error-{task:05d}.json")
