"""All rows of a data set as columns of numbers, read from the files of the shards: what is decided is decided on
these, and no text is held."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.settings import SplitSettings
from data_prep.common.split import ends
from data_prep.rows.shard import OWN, ROW, STATES, RowPlan
from jobs.core import files

Array = np.ndarray[Any, Any]


class Table:
    """The rows of all shards, in the order in which they were read: held-out splits first."""

    def __init__(self, root: Path, plan: RowPlan) -> None:
        self.plan = plan
        directories = [root / f"{number:05d}" for number in range(len(plan.shards))]
        self.told = [files.read_json(directory / "shard.json") for directory in directories]
        self._own = [directory / "own.bin" for directory in directories]
        self._tables = [directory / "table.bin" for directory in directories]
        self._starts = np.cumsum([0, *(path.stat().st_size // ROW.itemsize for path in self._tables)])
        names = ("table.bin", "rows.bin", "ids.bin")
        self._files = [[os.open(directory / name, os.O_RDONLY) for name in names] for directory in directories]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def close(self) -> None:
        """Close the files."""
        for file in itertools.chain(*self._files):
            os.close(file)

    def column(self, name: str) -> Array:
        """A field of ``shard.ROW`` of all rows."""
        return np.concatenate([self._part(path, name) for path in self._tables])

    def named(self, kind: str, name: str) -> tuple[list[str], Array]:
        """The names of the forms or reasons, and of all rows the number of theirs."""
        names: dict[str, int] = {}
        parts = []
        for told, path in zip(self.told, self._tables, strict=True):
            numbers = [names.setdefault(one, len(names)) for one in told["names"][kind]]
            parts.append(np.array(numbers or [0], np.int16)[self._part(path, name)])
        return list(names), np.concatenate(parts)

    def line(self, number: int) -> bytes:
        """A row as it will be written; the sample of one that was dropped for what it is."""
        shard, record = self._record(number)
        return os.pread(self._files[shard][1], int(record["size"]), int(record["at"]))

    def encoded(self, number: int) -> Array:
        """The ids of a row, where they were kept: see ``ids.bin``."""
        shard, record = self._record(number)
        content = os.pread(self._files[shard][2], 4 * int(record["tokens"]), int(record["encoded"]))
        return np.frombuffer(content, np.int32)

    def place(self, number: int) -> str:
        """``file:line`` of a row."""
        _, record = self._record(number)
        return f"{self.plan.files[record['file']]}:{record['line']}"

    def _record(self, number: int) -> tuple[int, Any]:
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        content = os.pread(self._files[shard][0], ROW.itemsize, int(number - self._starts[shard]) * ROW.itemsize)
        return shard, np.frombuffer(content, ROW)[0]

    @staticmethod
    def _part(path: Path, name: str) -> Array:
        """A field of the rows of a shard. Files are read, not mapped: what is mapped counts as memory, too."""
        found: Array = np.fromfile(path, ROW)[name].copy()
        return found

    def repeated(self) -> Iterator[tuple[str, int, str]]:
        """(file, line, place of the first) of rows with an id that another row has before them."""
        own = np.concatenate([np.fromfile(path, OWN) for path in self._own])
        first = first_of_equal(own["id"][:, None])
        for at in np.flatnonzero(own["content"] != own["content"][first]):
            known, found = own[first[at]], own[at]
            place = f"{self.plan.files[known['file']]}:{known['line']}"
            yield self.plan.files[found["file"]], int(found["line"]), place

    def at(self, file: str, line: int) -> Array:
        """Numbers of the rows that were made of a line of a file."""
        own = self.plan.files.index(file)
        return np.flatnonzero((self.column("line") == line) & (self.column("file") == own))


def _firsts(ordered: Array) -> Array:
    """Of every entry of sorted keys the number of the first that is equal."""
    new = np.ones(len(ordered), bool)
    unequal = ordered[1:] != ordered[:-1]
    new[1:] = unequal if unequal.ndim == 1 else unequal.any(axis=1)
    return np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))


def first_of_equal(keys: Array) -> Array:
    """Of every row the number of the first that has the same keys (all columns)."""
    order = np.lexsort(keys.T)
    found = np.empty(len(order), np.int64)
    found[order] = order[_firsts(keys[order])]
    return found


def connected(count: int, shared: Callable[[], Iterator[tuple[Array, ...]]]) -> Array:
    """Of each of ``count`` rows a label that it has in common with all rows to which shared keys lead; ``shared`` gives
    columns of keys, those that are compared with each other together."""
    label = np.arange(count, dtype=np.int64)
    while count:
        before = label.copy()
        for columns in shared():
            keys = np.concatenate(columns)
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            order %= count
            starts = np.unique(_firsts(keys))
            least = np.repeat(np.minimum.reduceat(label[order], starts), np.diff(np.append(starts, len(keys))))
            np.minimum.at(label, order, least)
            label = label[label]
        if (label == before).all():
            break
    return label


def splits(table: Table, rows: Array, split: SplitSettings, stratified: bool) -> Array:
    """Split (its number in ``STATES``) of each of ``rows``: all that share a prompt, a conversation or the value of
    ``group_by`` are in one."""

    def of(name: str) -> Array:
        found: Array = table.column(name)[rows]
        return found

    def shared() -> Iterator[tuple[Array, ...]]:
        keys = of("keys")
        yield (keys[:, 0],)
        yield (keys[:, 1],)
        yield (of("first"), keys[:, 2])
        yield (of("group"),)

    label = connected(len(rows), shared)
    order = np.lexsort((of("first"), label))
    number = np.empty(len(rows), np.uint64)
    number[order] = of("number")[order][_firsts(label[order])]
    if not stratified:
        place = number / 2.0**64
        found = np.full(len(rows), STATES.index("train"), np.uint8)
        for name, end in reversed(ends(split)):
            found[place < end] = STATES.index(name)
        return found
    # The stratum of a group is that of its first row by id; within one the groups are in the order of their numbers.
    order = np.lexsort((of("id"), label))
    firsts = np.unique(order[_firsts(label[order])])
    strata = of("stratum")[firsts]
    of_label = np.zeros(len(rows), np.uint8)
    for stratum in np.unique(strata):
        own = firsts[strata == stratum]
        own = own[np.argsort(number[own], kind="stable")]
        test = round(split.test * len(own))
        held = round((split.test + split.validation) * len(own))
        for name, part in (("test", own[:test]), ("validation", own[test:held]), ("train", own[held:])):
            of_label[label[part]] = STATES.index(name)
    result: Array = of_label[label]
    return result
