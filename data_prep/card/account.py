"""Every row accounted for: read = kept + dropped, each drop with its reason, and the first few of each to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.common.errors import DataError, Flaw

SAMPLES = 5
SAMPLE_CHARS = 200


class Account:
    """Counts of one shard or of the whole. Shards are added up in their order, so samples are the first of all."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.samples: dict[str, list[tuple[str, str]]] = {}
        self.notes: Counter[str] = Counter()
        """Things done to rows that were kept: e-mail addresses masked, texts repaired."""

    def drop(self, reason: str, place: str, text: str = "") -> None:
        """Count a row as dropped."""
        self.dropped[reason] += 1
        kept = self.samples.setdefault(reason, [])
        if len(kept) < SAMPLES:
            kept.append((place, text[:SAMPLE_CHARS]))

    def bad(self, flaw: Flaw, on_error: str) -> None:
        """Bad input: an error with its place, unless the user said ``on_error: skip``.

        Raises:
            DataError: begins with ``file:line``.
        """
        if on_error != "skip":
            raise DataError(f"{flaw.place}: {flaw.text}")
        self.read += 1
        self.drop(flaw.reason, flaw.place, flaw.text)

    @property
    def kept(self) -> int:
        return self.read - self.dropped.total()

    def why(self) -> str:
        """The commonest reasons for drops, each with its first place; empty where nothing was dropped."""
        found = [
            f"{count} {reason}" + (f", the first {self.samples[reason][0][0]}" if self.samples.get(reason) else "")
            for reason, count in self.dropped.most_common(3)
        ]
        return f"; dropped: {'; '.join(found)}" if found else ""

    def add(self, other: Account) -> None:
        """Add the counts of the next shard."""
        self.read += other.read
        self.dropped.update(other.dropped)
        self.notes.update(other.notes)
        for reason, samples in other.samples.items():
            mine = self.samples.setdefault(reason, [])
            mine.extend(samples[: SAMPLES - len(mine)])

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``of_json`` reads them."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "notes": {name: count for name, count in sorted(self.notes.items()) if count},
            "samples": {key: self.samples[key] for key in sorted(self.samples)},
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Account:
        found = cls()
        found.read = int(value["read"])
        found.dropped.update(value["dropped"])
        found.notes.update(value["notes"])
        found.samples = {reason: [(place, text) for place, text in kept] for reason, kept in value["samples"].items()}
        return found


@dataclass
class Lengths:
    """A histogram of lengths in powers of two, with total, shortest and longest: constant memory for any number."""

    bins: Counter[int] = field(default_factory=Counter)
    total: int = 0
    shortest: int | None = None
    longest: int = 0

    def see(self, length: int) -> None:
        self.bins[length.bit_length()] += 1
        self.total += length
        self.shortest = length if self.shortest is None else min(self.shortest, length)
        self.longest = max(self.longest, length)

    @property
    def count(self) -> int:
        return self.bins.total()

    def add(self, other: Lengths) -> None:
        self.bins.update(other.bins)
        self.total += other.total
        found = [one for one in (self.shortest, other.shortest) if one is not None]
        self.shortest = min(found, default=None)
        self.longest = max(self.longest, other.longest)

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total": self.total,
            "shortest": self.shortest or 0,
            "longest": self.longest,
            "bins": {str(key): self.bins[key] for key in sorted(self.bins)},
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Lengths:
        bins = Counter({int(key): int(count) for key, count in value["bins"].items()})
        return cls(bins, int(value["total"]), int(value["shortest"]) if bins else None, int(value["longest"]))
