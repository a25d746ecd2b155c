"""The output of a data stage: the three splits and the card, which accounts for every unit read."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.card import overlaps
from data_prep.common.settings import SPLITS, Settings
from data_prep.common.units import DraftRow, Tally
from data_prep.sources.catalogues import Wheel
from jobs.core import hashing
from jobs.core.spec import Source


@dataclass
class Written:
    """The rows of each split, the units in them, and of every row some numbers: those of the overlaps, and by field
    how many characters it has."""

    output: Path
    rows: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SPLITS, 0)))
    units: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SPLITS, 0)))
    digests: dict[str, array[int]] = field(default_factory=lambda: {split: array("Q") for split in SPLITS})
    sizes: dict[str, dict[str, array[int]]] = field(default_factory=lambda: {split: {} for split in SPLITS})

    def see(self, row: DraftRow) -> None:
        """Count a row."""
        self.rows[row.split] += 1
        self.units[row.split] += len(row.units)
        self.digests[row.split].extend(overlaps.digests(tuple(row.fields.values())))
        for name, value in row.fields.items():
            self.sizes[row.split].setdefault(name, array("I")).append(len(value))

    def overlaps(self, shared: Mapping[str, int]) -> dict[str, dict[str, int] | None]:
        """What the splits have in common; ``shared``: rows that were dropped for it."""
        given = {
            split: overlaps.SplitRows(len(own) // 2, zip(own[::2], own[1::2], strict=True), partial(self._texts, split))
            for split, own in self.digests.items()
            if own
        }
        return overlaps.between(given, shared)

    def _texts(self, split: str) -> Iterator[tuple[str, ...]]:
        with open(self.output / f"{split}.jsonl", encoding="utf-8") as stream:
            for _, *texts in map(dict.values, map(json.loads, stream)):
                yield tuple(texts)


def write_rows(output: Path, rows: Iterable[DraftRow], tally: Tally) -> Written:
    """Write ``<split>.jsonl`` for every split, rows as they come; what was written."""
    written = Written(output)
    with ExitStack() as stack:
        streams = {
            split: stack.enter_context(open(output / f"{split}.jsonl", "w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        for row in rows:
            streams[row.split].write(json.dumps({"id": row.id, **row.fields}, ensure_ascii=False) + "\n")
            written.see(row)
            for unit in row.units:
                tally.keep(unit.origin)
    return written


def describe(
    settings: Settings,
    written: Written,
    tally: Tally,
    groups: dict[str, int | str],
    wheels: list[Wheel],
    sources: tuple[Source, ...],
) -> dict[str, Any]:
    """Facts of the data set as plain JSON values.

    Raises:
        RuntimeError: units are unaccounted for, which is a bug in overnight.
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
        "rows": dict(written.rows),
        "units": dict(written.units),
        "characters": {split: {name: _lengths(one) for name, one in written.sizes[split].items()} for split in SPLITS},
        "origins": {name: {"read": tally.read[name], "kept": tally.kept[name]} for name in sorted(tally.read)},
        "split": {**asdict(settings.split), **groups},
        "wheels": [
            {
                "file": wheel.path.name,
                "project": wheel.project,
                "version": wheel.version,
                "licence": wheel.licence,
                "sha256": hashing.digest_file(wheel.path),
            }
            for wheel in sorted(wheels, key=lambda wheel: wheel.path.name)
        ],
        "sources": [asdict(source) for source in sorted(sources, key=lambda source: source.path)],
        "settings": asdict(settings),
    }


def _lengths(found: array[int]) -> dict[str, int]:
    """Characters of a field: in all, and of the shortest, the middle, the 95th of 100 and the longest text."""
    sizes = sorted(found)
    return {
        "total": sum(sizes),
        "shortest": sizes[0],
        "median": sizes[len(sizes) // 2],
        "p95": sizes[min(len(sizes) - 1, len(sizes) * 95 // 100)],
        "longest": sizes[-1],
    }
