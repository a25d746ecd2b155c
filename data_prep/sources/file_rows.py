"""Instructions and preferences of user files without ``prepare``: read once, put on disk, given back by their ids."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import BinaryIO

from data_prep.common import text
from data_prep.common.settings import Settings
from data_prep.common.split import assign
from data_prep.common.units import DraftRow, Tally, Unit, identify
from data_prep.sources import files, layout, messages
from jobs.core.spec import Source


class FileRows:
    """The rows that serve, each once, in the order of their ids. Those with the same prompt are of one split.

    Of a row that is in two splits that have files of their own the held-out one stays; ``shared`` counts these.
    ``spool`` has the texts; in memory are 25 bytes for each row.
    """

    def __init__(
        self, settings: Settings, split_of: Mapping[str, str], tally: Tally, shared: Counter[str], spool: BinaryIO
    ) -> None:
        self._settings, self._split_of = settings, split_of
        self._tally, self._shared, self._spool = tally, shared, spool
        self._ids, self._at, self._prompts, self._order = array("Q"), array("Q"), array("Q"), bytearray()

    def read(self, sources: tuple[Source, ...], progress: Callable[[int, int], None]) -> None:
        """Read all rows of ``sources``.

        Raises:
            DataError: a bad row, with its place.
        """
        for row in files.rows(self._settings.kind, sources, progress):
            self._tally.saw(row.path)
            self._tally.ignored.update(row.ignored)
            group = "s:" + (text.key(row.texts[0]) or row.texts[0])
            self._prompts.append(text.digest(group))
            flaw = messages.length_flaw(self._settings, row.texts)
            if self._settings.kind == "preferences" and text.exact(row.texts[1]) == text.exact(row.texts[2]):
                flaw = "no_difference"
            if flaw:
                self._tally.drop(flaw)
                continue
            split, name = self._split_of[row.path], identify(*row.texts)
            unit = Unit(name, row.path, row.path, row.position, group, row.texts, row.alone, split)
            self._ids.append(int(identify(name), 16))
            self._order.append(layout.order(split))
            self._at.append(self._spool.tell())
            self._spool.write(json.dumps(asdict(unit)).encode() + b"\n")

    def _units(self) -> Iterator[Unit]:
        for number in sorted(range(len(self._ids)), key=lambda one: self._ids[one] << 2 | self._order[one]):
            self._spool.seek(self._at[number])
            found = json.loads(self._spool.readline())
            yield Unit(**{**found, "texts": tuple(found["texts"])})

    def __iter__(self) -> Iterator[DraftRow]:
        kept = None
        for unit in self._units():
            if kept is None or unit.name != kept.name:
                kept, held_out = unit, unit.split in ("validation", "test")
                split = unit.split if held_out else assign(unit.group, self._settings.split)
                yield DraftRow.pair(self._settings, unit, split)
            elif unit.split == kept.split:
                self._tally.drop("duplicate")
            else:
                self._shared[f"{unit.split}/{kept.split}"] += 1
                self._tally.drop(f"duplicate_of_{kept.split}")

    def facts(self) -> dict[str, int | str]:
        """How many prompts there are, and a digest: data sets that are split alike and have the same one share none."""
        prompts = sorted({*self._prompts})
        return {
            "groups": len(prompts),
            "largest_group": min(1, len(prompts)),
            "digest": hashlib.sha256(array("Q", prompts).tobytes()).hexdigest(),
        }
