"""Directories for a workspace: those that the environment names, and what ``df`` says of their file systems."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.site.ask import Heard

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
class Place:
    """A directory that a variable names. ``kind``: of the file system; None where df did not answer."""

    variable: str
    path: str
    writable: bool
    kind: str | None = None
    free: int = 0
    problem: str = ""

    @property
    def is_shared(self) -> bool:
        return self.kind in SHARED

    @property
    def is_temporary(self) -> bool:
        return self.kind == "tmpfs" or any(Path(self.path).is_relative_to(one) for one in _TEMPORARY)


def named(environment: Mapping[str, str]) -> dict[str, str]:
    """Variable -> directory, each directory once; a directory that is not absolute is no directory."""
    found: dict[str, str] = {}
    for name in VARIABLES:
        path = environment.get(name, "")
        if path.startswith("/") and path not in found.values():
            found[name] = path
    return found


def places(directories: Mapping[str, str], heard: Mapping[str, Heard]) -> list[Place]:
    """What is known of each; ``heard`` holds the answers of ``df`` in the order of ``directories``."""
    found = []
    for number, (variable, path) in enumerate(directories.items()):
        answer = heard[f"df {number}"]
        if answer.text is None:  # hung, or not there: it is not touched again
            found.append(Place(variable, path, False, problem=answer.problem))
            continue
        fields = answer.text.splitlines()[-1].split()
        free = int(fields[4]) if len(fields) > 6 and fields[4].isdigit() else 0
        writable = Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK)
        found.append(Place(variable, path, writable, fields[1] if len(fields) > 1 else None, free))
    return found


def best(found: list[Place]) -> Place | None:
    """The first that can be written: on a file system that nodes share, else anywhere but in a temporary place."""
    usable = [place for place in found if place.writable]
    for wanted in (
        lambda place: place.is_shared,
        lambda place: not place.is_temporary,
        lambda place: True,
    ):
        chosen = next((place for place in usable if wanted(place)), None)
        if chosen is not None:
            return chosen
    return None
