"""Rows of user files without ``prepare``: read once, put on disk, given back by their ids."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import compress, groupby
from typing import BinaryIO

from data_prep.common import text
from data_prep.common.settings import Settings
from data_prep.common.split import assign
from data_prep.common.units import DraftRow, Tally, Unit, cut, identify
from data_prep.sources import files, layout, messages
from jobs.core.spec import Source


class _Spool:
    """Units on disk; in memory is where each begins."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.at = array("Q")

    def add(self, unit: Unit) -> None:
        self.at.append(self._stream.tell())
        self._stream.write(json.dumps(asdict(unit)).encode() + b"\n")

    def __getitem__(self, number: int) -> Unit:
        self._stream.seek(self.at[number])
        found = json.loads(self._stream.readline())
        return Unit(**{**found, "texts": tuple(found["texts"])})


class FileRows:
    """The rows of instructions or preferences that serve, each once, in the order of their ids. Those with the same
    prompt are of one split.

    Of a row that is in two splits that have files of their own the held-out one stays; ``shared`` counts these. Of
    preferences that contradict each other none stays. ``spool`` has the texts; in memory are 25 bytes for each row
    (of preferences 41), and 8 more while they are put in order.
    """

    def __init__(
        self, settings: Settings, split_of: Mapping[str, str], tally: Tally, shared: Counter[str], spool: BinaryIO
    ) -> None:
        self._settings, self._split_of = settings, split_of
        self._tally, self._shared, self._spool = tally, shared, _Spool(spool)
        self._ids, self._prompts, self._order = array("Q"), array("Q"), bytearray()
        self._pairs, self._contraries = array("Q"), array("Q")

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
            said = [text.exact(one) for one in row.texts]
            if self._settings.kind == "preferences" and said[1] == said[2]:
                flaw = "no_difference"
            if flaw:
                self._tally.drop(flaw)
                continue
            if self._settings.kind == "preferences":
                self._pairs.append(text.digest(*said))
                self._contraries.append(text.digest(said[0], said[2], said[1]))
            split, name = self._split_of[row.path], identify(*row.texts)
            self._ids.append(int(identify(name), 16))
            self._order.append(layout.order(split))
            self._spool.add(Unit(name, row.path, row.path, row.position, group, row.texts, row.alone, split))

    def __iter__(self) -> Iterator[DraftRow]:
        pairs = array("Q", (self._pairs[place] for place in in_order(self._pairs, bytes(len(self._pairs)))))
        for place, kept in _first_of_equal(self._ids, self._order):
            if place == kept and pairs and _holds(pairs, self._contraries[place]):
                self._tally.drop("contradiction")
            elif place == kept:
                unit = self._spool[place]
                yield DraftRow.pair(self._settings, unit, _split(unit.group, unit.split, self._settings))
            else:
                _drop(self._order[place], self._order[kept], self._tally, self._shared)

    def facts(self) -> dict[str, int | str]:
        """How many prompts there are, and a digest: data sets that are split alike and have the same one share none."""
        return _facts(self._prompts)


class FileTexts:
    """The documents of a corpus, in the order of their ids; of equal texts the first is in one.

    Paragraphs of one file are joined to documents, which are what is split: no text is torn paragraph by paragraph. All
    documents of a text are in one split, if ``split.group`` does not say otherwise. ``digests``: of the files.
    ``shared`` and ``spool`` are as of ``FileRows``; in memory are 17 bytes for each paragraph, 8 more while they are
    put in order, and 24 for each document.
    """

    def __init__(
        self,
        settings: Settings,
        split_of: Mapping[str, str],
        digests: Mapping[str, str],
        tally: Tally,
        shared: Counter[str],
        spool: BinaryIO,
    ) -> None:
        self._settings, self._split_of, self._digests = settings, split_of, digests
        self._tally, self._shared, self._spool = tally, shared, _Spool(spool)
        self._ids, self._first, self._groups = array("Q"), array("Q"), array("Q")

    def read(self, sources: tuple[Source, ...], progress: Callable[[int, int], None]) -> None:
        """Read all texts of ``sources``.

        Raises:
            DataError: a bad row, with its place.
        """
        exact, order = array("Q"), bytearray()
        for row in files.rows("corpus", sources, progress):
            self._tally.saw(row.path)
            self._tally.ignored.update(row.ignored)
            if flaw := messages.length_flaw(self._settings, row.texts):
                self._tally.drop(flaw)
                continue
            group, split = "s:" + (text.key(row.texts[0]) or row.texts[0]), self._split_of[row.path]
            exact.append(text.digest(text.exact(row.texts[0])))
            order.append(layout.order(split))
            name = identify(*row.texts)
            self._spool.add(Unit(name, row.path, row.path, row.position, group, row.texts, row.alone, split))
        self._spool.at = array("Q", compress(self._spool.at, self._kept(exact, order)))
        self._divide()

    def _kept(self, exact: array[int], order: bytearray) -> bytearray:
        """Of every text whether it stays."""
        stays = bytearray(len(exact))
        for place, kept in _first_of_equal(exact, order):
            if place == kept:
                stays[place] = 1
            else:
                _drop(order[place], order[kept], self._tally, self._shared)
        return stays

    def _divide(self) -> None:
        """Find the documents: their ids, their groups, and where each begins."""
        taken = 0
        units = map(self._spool.__getitem__, range(len(self._spool.at)))
        for _, own in groupby(units, key=lambda unit: unit.origin):
            for part in cut(own, self._settings.document_chars, "\n\n"):
                self._ids.append(int(DraftRow.document(part, "", "").id, 16))
                self._groups.append(text.digest(self._group(part[0])))
                self._first.append(taken)
                taken += len(part)
        self._first.append(taken)

    def _group(self, unit: Unit) -> str:
        by_file = self._settings.split.group == "file" or (self._settings.split.group is None and not unit.alone)
        return f"f:{self._digests[unit.origin]}" if by_file else unit.group

    def __iter__(self) -> Iterator[DraftRow]:
        for number in in_order(self._ids, bytes(len(self._ids))):
            part = [self._spool[at] for at in range(self._first[number], self._first[number + 1])]
            yield DraftRow.document(part, _split(self._group(part[0]), part[0].split, self._settings), "\n\n")

    def facts(self) -> dict[str, int | str]:
        """How many groups there are, and a digest, as ``FileRows.facts``."""
        return _facts(self._groups)


def in_order(keys: array[int], second: bytes | bytearray) -> Iterator[int]:
    """The places of 64-bit keys in the order of the keys, equal ones by ``second`` and place.

    They are sorted in parts: as one list they would take ten times the memory of the keys.
    """
    parts = [array("Q") for _ in range(256)]
    for place, key in enumerate(keys):
        parts[key >> 56].append(place)
    for part in parts:
        yield from sorted(part, key=lambda place: (keys[place], second[place]))


def _first_of_equal(keys: array[int], second: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """The places of keys as ``in_order`` has them, each with the first one of an equal key."""
    first = -1
    for place in in_order(keys, second):
        if first < 0 or keys[place] != keys[first]:
            first = place
        yield place, first


def _holds(keys: array[int], key: int) -> bool:
    """Whether keys that are sorted hold one."""
    at = bisect_left(keys, key)
    return at < len(keys) and keys[at] == key


def _split(group: str, given: str, settings: Settings) -> str:
    """Of a file that is of a held-out split that one, else by the group."""
    return given if given in ("validation", "test") else assign(group, settings.split)


def _drop(order: int, kept: int, tally: Tally, shared: Counter[str]) -> None:
    """Count a repetition of what is kept in another split or in the same one, of both of which the place is given."""
    if order == kept:
        tally.drop("duplicate")
    else:
        shared[f"{layout.IN_ORDER[order]}/{layout.IN_ORDER[kept]}"] += 1
        tally.drop(f"duplicate_of_{layout.IN_ORDER[kept]}")


def _facts(groups: array[int]) -> dict[str, int | str]:
    hasher, count = hashlib.sha256(), 0
    for place, first in _first_of_equal(groups, bytes(len(groups))):
        if place == first:
            count += 1
            hasher.update(groups[place].to_bytes(8, "little"))
    return {"groups": count, "largest_group": min(1, count), "digest": hasher.hexdigest()}
