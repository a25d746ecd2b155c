"""The output of a data stage: the three splits and the card, which accounts for every unit read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.common.settings import SPLITS, Settings
from data_prep.common.split import Assignment
from data_prep.common.units import DraftRow, Tally
from data_prep.sources.catalogues import Wheel
from jobs.core import seal
from jobs.core.spec import Source


def write_rows(output: Path, rows: list[DraftRow]) -> dict[str, int]:
    """Write ``<split>.jsonl`` for every split, rows in the order of their ids; returns the number of rows of each."""
    counts: dict[str, int] = {}
    for split in SPLITS:
        own = sorted((row for row in rows if row.split == split), key=lambda row: row.id)
        with open(output / f"{split}.jsonl", "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps({"id": row.id, **row.fields}, ensure_ascii=False) + "\n" for row in own)
        counts[split] = len(own)
    return counts


def describe(
    settings: Settings,
    rows: list[DraftRow],
    tally: Tally,
    assignment: Assignment,
    wheels: list[Wheel],
    sources: tuple[Source, ...],
) -> dict[str, Any]:
    """Facts of the data set as plain JSON values.

    Raises:
        RuntimeError: units are unaccounted for, which is a bug of ours.
    """
    read, kept, dropped = tally.read.total(), tally.kept.total(), tally.dropped.total()
    if read != kept + dropped:
        raise RuntimeError(f"{read} {tally.unit}s read, but {kept} kept and {dropped} dropped")
    return {
        "schema": 1,
        "kind": settings.kind,
        "unit": tally.unit,
        "read": read,
        "kept": kept,
        "dropped": dict(sorted(tally.dropped.items())),
        "rows": {split: sum(row.split == split for row in rows) for split in SPLITS},
        "units": {split: sum(len(row.units) for row in rows if row.split == split) for split in SPLITS},
        "characters": {split: _lengths([row for row in rows if row.split == split]) for split in SPLITS},
        "origins": {name: {"read": tally.read[name], "kept": tally.kept[name]} for name in sorted(tally.read)},
        "split": {
            **asdict(settings.split),
            "groups": len(assignment.sizes),
            "largest_group": max(assignment.sizes.values(), default=0),
            "digest": assignment.digest,
        },
        "wheels": [
            {
                "file": wheel.path.name,
                "project": wheel.project,
                "version": wheel.version,
                "licence": wheel.licence,
                "sha256": seal.digest_file(wheel.path),
            }
            for wheel in sorted(wheels, key=lambda wheel: wheel.path.name)
        ],
        "sources": [asdict(source) for source in sorted(sources, key=lambda source: source.path)],
        "settings": asdict(settings),
    }


def _lengths(rows: list[DraftRow]) -> dict[str, dict[str, int]]:
    """Characters of every field: in all, and of the shortest, the middle, the 95th of 100 and the longest text."""
    found: dict[str, dict[str, int]] = {}
    for name in rows[0].fields if rows else ():
        sizes = sorted(len(row.fields[name]) for row in rows)
        found[name] = {
            "total": sum(sizes),
            "shortest": sizes[0],
            "median": sizes[len(sizes) // 2],
            "p95": sizes[min(len(sizes) - 1, len(sizes) * 95 // 100)],
            "longest": sizes[-1],
        }
    return found
