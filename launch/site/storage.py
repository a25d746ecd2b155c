"""Directories for a workspace: those that the environment names, and what ``df`` says of their file systems."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launch.slurm.ask import Response

VARIABLES = (
    "SCRATCH", "PSCRATCH", "CSCRATCH", "FASTSCRATCH", "WORK", "PROJECT", "PROJECT_DIR", "PROJECTS", "STORE", "DATA",
    "HOME",
)  # fmt: skip
"""As sites call them, the ones for large files first."""

#: File systems that all nodes of a cluster usually see, as df and /proc/mounts call them.
SHARED = frozenset(
    {"lustre", "gpfs", "beegfs", "nfs", "nfs4", "ceph", "cephfs", "fuse.ceph", "wekafs", "panfs", "pvfs2", "orangefs",
     "fuse.juicefs", "fuse.quobyte", "fhgfs", "afs", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.gpfs", "daos"}
)  # fmt: skip
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # recognised, never written


@dataclass(frozen=True)
class StorageArea:
    """A directory that a variable names. ``kind``: of the file system; None where df did not answer. ``source``: what
    is mounted there. ``quota`` and ``used``: bytes of the user's own, as far as the system says; None without one."""

    variable: str
    path: str
    writable: bool
    kind: str | None = None
    free: int = 0
    problem: str = ""
    source: str = ""
    quota: int | None = None
    used: int = 0
    quota_from: str = ""

    @property
    def is_shared(self) -> bool:
        return self.kind in SHARED

    @property
    def is_temporary(self) -> bool:
        return self.kind == "tmpfs" or any(Path(self.path).is_relative_to(one) for one in _TEMPORARY)


def named(environment: Mapping[str, str]) -> dict[str, str]:
    """Variable -> directory, each directory once; a directory that is not absolute is not a directory."""
    found: dict[str, str] = {}
    for name in VARIABLES:
        path = environment.get(name, "")
        # A profile reads a dollar as the beginning of a variable.
        if path.startswith("/") and "$" not in path and path not in found.values():
            found[name] = path
    return found


def places(directories: Mapping[str, str], response: Mapping[str, Response]) -> list[StorageArea]:
    """What is known of each; ``response`` holds the answers of ``df`` in the order of ``directories``."""
    found = []
    for number, (variable, path) in enumerate(directories.items()):
        answer = response[f"df {number}"]
        if answer.text is None:  # hung, or not there: it is not touched again
            found.append(StorageArea(variable, path, False, problem=answer.problem))
            continue
        fields = answer.text.splitlines()[-1].split()
        free = int(fields[4]) if len(fields) > 6 and fields[4].isdigit() else 0
        writable = Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK)
        kind = fields[1] if len(fields) > 1 else None
        found.append(StorageArea(variable, path, writable, kind, free, source=fields[0] if fields else ""))
    return found


def quota_questions(found: Sequence[StorageArea], user: str) -> dict[str, tuple[str, ...]]:
    """Commands that say how much of a file system the user may fill, by the place's variable."""
    result: dict[str, tuple[str, ...]] = {}
    for place in found:
        if place.kind == "lustre":
            result[place.variable] = ("lfs", "quota", "-q", "-u", user, place.path)
        elif place.kind is not None and not place.is_temporary:
            result[place.variable] = ("quota", "-w", "-p")
    return result


def with_quotas(found: Sequence[StorageArea], response: Mapping[str, Response]) -> list[StorageArea]:
    """The places with what was answered; a command that is not there says that there is no quota that it would show."""
    result = []
    for place in found:
        answer = response.get(place.variable)
        text = answer.text if answer is not None else None
        numbers = _numbers_of(text or "", (place.path, place.source))
        limit = (numbers[2] or numbers[1]) if numbers else 0
        if answer is not None and numbers and limit:
            place = replace(place, quota=limit << 10, used=numbers[0] << 10, quota_from=answer.command)
        result.append(place)
    return result


def _numbers_of(text: str, names: Collection[str]) -> tuple[int, int, int] | None:
    """(used, soft limit, hard limit) in KiB behind one of ``names``, in the table of quota(1) or ``lfs quota``; a star
    behind the first says that it is more than allowed, and a long name has a line of its own."""
    words = text.split()
    for number, word in enumerate(words):
        values = [each.strip("*[]") for each in words[number + 1 : number + 4]]
        if word in names and len(values) == 3 and all(each.isdigit() for each in values):
            used, soft, hard = map(int, values)
            return used, soft, hard
    return None


def best(found: list[StorageArea]) -> StorageArea | None:
    """The first that can be written: on a file system that nodes share, else anywhere but in a temporary place."""
    usable = [place for place in found if place.writable]
    return max(usable, key=lambda place: 2 if place.is_shared else 0 if place.is_temporary else 1, default=None)
