"""What a check of a profile found, as data and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from launch.base import text as tables
from launch.slurm import ask


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``where``: ``file:line:column`` of the line to change; empty: there is none."""

    level: Level
    what: str
    text: str
    where: str = ""

    def as_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


def table(findings: list[Finding]) -> list[str]:
    """For people; the line to change only where something is to be changed."""
    rows = [[one.level, one.what, "" if one.level is Level.OK else one.where, ask.plain(one.text)] for one in findings]
    return tables.table(("", "what", "line", "found"), rows)


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    while not path.exists() and path.parent != path:
        path = path.parent
    return path
