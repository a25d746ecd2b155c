"""A run's raw files, read without any code of ours: see ``tests.support.recount``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEAR = 1e-6
"""Seconds since 1970 have no more digits than this."""


@dataclass(frozen=True)
class Counted:
    """A number as it follows from ``source``: anything from ``low`` to ``high``, which are mostly the same."""

    low: float
    high: float
    source: str

    def fits(self, number: float) -> bool:
        near = NEAR * max(1.0, abs(self.low) * 1e-9)
        return self.low - near <= number <= self.high + near


Numbers = dict[str, Counted]


def exactly(number: float, source: str) -> Counted:
    return Counted(number, number, source)


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Stage:
    """A stage with its raw files."""

    plan: dict[str, Any]
    directory: Path
    store: Path

    @property
    def name(self) -> str:
        return str(self.plan["name"])

    @property
    def gpus(self) -> int:
        return int(self.plan["resources"]["gpus_per_node"] or 0) * int(self.plan["resources"]["nodes"])

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in json_lines(self.directory / "events.jsonl") if one["event"] in kinds]

    def reports(self) -> list[dict[str, Any]]:
        return json_lines(self.directory / "progress.jsonl")

    def claims(self) -> list[dict[str, Any]]:
        """Starts in the order of their restarts."""
        found = [json.loads(path.read_text()) for path in (self.store / "claims").iterdir()]
        return sorted(found, key=lambda one: (one["link"], one["restart"]))

    def verdict(self, claim: Mapping[str, Any]) -> dict[str, Any]:
        path = self.directory / f"verdict-{claim['job']}_{claim['restart']}.json"
        return dict(json.loads(path.read_text()))


def stages_of(run: Path) -> list[Stage]:
    workspace = run.parent.parent
    plan = json.loads((run / "plan.json").read_text())
    return [
        Stage(one, run / "stages" / one["name"],
              workspace / "store" / f"{one['produces_kind']}-{one['fingerprint'][:16]}")
        for one in plan["stages"]
    ]  # fmt: skip
