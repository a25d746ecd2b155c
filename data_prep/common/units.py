"""What the kinds have in common: rows on their way to a split, and the count of all that was read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from data_prep.common.settings import Settings


@dataclass
class Tally:
    """Every unit (message, row or paragraph) read is kept or dropped for one reason; by origin, too."""

    unit: str
    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    """Fields of rows that say nothing about what is learned (``id``, ``url``), and how many rows have them."""

    def saw(self, origin: str) -> None:
        self.read[origin] += 1

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count

    def keep(self, origin: str) -> None:
        self.kept[origin] += 1


@dataclass(frozen=True)
class Unit:
    """A text or a tuple of texts that may be used. ``group``: its key for the split; ``split``: the one that its file
    is of, empty where it is of none.

    ``alone``: a document by itself (a row of a JSON-lines corpus); others may be joined with their neighbours.
    """

    name: str
    origin: str
    project: str
    position: int
    group: str
    texts: tuple[str, ...]
    alone: bool = False
    split: str = ""

    @property
    def order(self) -> tuple[str, str, int, str]:
        return (self.project, self.origin, self.position, self.name)


@dataclass(frozen=True)
class DraftRow:
    """A row of an output file and the units in it."""

    id: str
    split: str
    fields: dict[str, str]
    units: tuple[Unit, ...]

    @classmethod
    def pair(cls, settings: Settings, unit: Unit, split: str) -> DraftRow:
        """A prompt with its answers."""
        names = ("completion",) if settings.kind == "instructions" else ("chosen", "rejected")
        answers = dict(zip(names, unit.texts[1:], strict=True))
        return cls(identify(unit.name), split, {"prompt": settings.prompt_of(unit.texts[0]), **answers}, (unit,))

    @classmethod
    def document(cls, part: Sequence[Unit], split: str, between: str) -> DraftRow:
        """Texts joined to one."""
        fields = {"text": between.join(unit.texts[0] for unit in part)}
        return cls(identify(*(unit.name for unit in part)), split, fields, tuple(part))


def identify(*parts: str) -> str:
    """16 hex digits that stay the same as long as ``parts`` do; rows are in their order, which mixes the origins."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cut(stream: Iterable[Unit], characters: int, between: str) -> Iterator[list[Unit]]:
    """Parts that, joined, have at least ``characters``; a short rest (under half of it) goes to the part before. A
    document by itself is a part."""
    whole: list[Unit] = []
    current: list[Unit] = []
    size = 0
    for unit in stream:
        if unit.alone:
            yield [unit]
            continue
        size += len(unit.texts[0]) + (len(between) if current else 0)
        current.append(unit)
        if size >= characters:
            if whole:
                yield whole
            whole, current, size = current, [], 0
    if current and (not whole or size >= characters / 2):
        if whole:
            yield whole
        yield current
    elif whole:
        yield [*whole, *current]
