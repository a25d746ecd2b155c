"""Shards of a build as the tasks of an array of jobs: a list says which shard each task does.

::

    tasks.json    {"root", "phase", "shards"}: the task with index i does those of shards[i], one after the other
    error-3.json  bad input that task 3 has found: {"error", "settings"}
    exit-3        exit code of task 3 where it is not 0; written by its batch shell

A task that succeeds leaves nothing here: the seals of its shards say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.common.errors import DataError, SettingsError
from jobs.core import files


def write(path: Path, root: Path, phase: str, shards: Sequence[Sequence[int]]) -> None:
    """Write the list of tasks for the build in ``root``."""
    files.write_json(path, {"root": str(root), "phase": phase, "shards": [list(group) for group in shards]})


def main(path: Path, task: int) -> int:
    """Do the shards of one task: 0, or 1 where its input is bad."""
    from data_prep.corpus.shard import work

    asked = files.read_json(path)
    try:
        for shard in asked["shards"][task]:
            work(Path(asked["root"]), asked["phase"], shard)
    except DataError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        files.write_json(
            path.with_name(f"error-{task}.json"), {"error": str(error), "settings": isinstance(error, SettingsError)}
        )
        return 1
    return 0


def failures(path: Path) -> dict[int, DataError | str]:
    """What has failed so far, by task in order: bad input, or the exit code of a task that did not say why.

    One listing of the directory, however many tasks there are.
    """
    found: dict[int, DataError | str] = {}
    for entry in path.parent.iterdir():
        if entry.name.startswith("error-"):
            told = files.read_json(entry)
            found[int(entry.stem[6:])] = (SettingsError if told["settings"] else DataError)(told["error"])
        elif entry.name.startswith("exit-") and (code := entry.read_text(encoding="ascii").strip()):
            found.setdefault(int(entry.name[5:]), code)
    return dict(sorted(found.items()))
