"""Groups of near-duplicates among any number of documents, from signatures and bands on disk.

Memory: 16 bytes a document, and one band of a part of the documents at a time. The result depends on the documents and
their order only, not on how they were divided into shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from data_prep.dedup.minhash import BANDS, BINS

Array = np.ndarray[Any, Any]

_PART = 1 << 23  # documents of which one band is sorted at a time
_PAIRS = 1 << 14  # pairs of signatures compared at a time: 16 MiB
MARGIN = 2.5
"""Standard deviations of the estimate that a pair may lie below the wanted similarity: 98 of 100 pairs just at it are
found. (Borrowed bins make the estimate of documents of a few hundred words a little wider than the formula says.)"""


class Stacked:
    """Arrays of several shards (mapped files) as one; ``take`` reads single rows."""

    def __init__(self, parts: Sequence[Array]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: Array) -> Array:
        """The rows of these numbers, in this order."""
        found = np.empty((len(rows), *self._parts[0].shape[1:]), self._parts[0].dtype)
        shard = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(shard):
            mine = shard == number
            first = self._ends[number] - len(self._parts[number])
            found[mine] = self._parts[number][rows[mine] - first]
        return found


def groups(
    signatures: Stacked,
    bands: Sequence[Array],
    usable: Array,
    similarity: float,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> Array:
    """For every document, the number of the first document of its group of near-duplicates (its own: it is the first).

    Args:
        bands: of every shard, the (BANDS, documents) array of ``minhash.bands``.
        usable: documents to look at; the others are alone.
        similarity: wanted Jaccard similarity of the shingles; see ``MARGIN``.
    """
    label = np.arange(len(usable))
    needed = similarity - MARGIN * float(np.sqrt(similarity * (1 - similarity) / BINS))
    for band in range(BANDS):
        for one, other in _candidates(bands, band, usable):
            for start in range(0, len(one), _PAIRS):
                a, b = one[start : start + _PAIRS], other[start : start + _PAIRS]
                apart = label[a] != label[b]
                a, b = a[apart], b[apart]
                if len(a):
                    alike = (signatures.take(a) == signatures.take(b)).mean(axis=1) >= needed
                    _unite(label, a[alike], b[alike])
        progress(band + 1, BANDS)
    return label


def _candidates(bands: Sequence[Array], band: int, usable: Array) -> Iterator[tuple[Array, Array]]:
    """Pairs of documents that agree in ``band``. Of a large group not all pairs, but each document with the first and
    with the one before it: enough to join a group, at a cost that grows with its size, not with the square of it."""
    parts = -(-len(usable) // _PART)
    for part in range(parts):

        def mine(row: Array, first: int, part: int = part) -> Array:
            wanted = usable[first : first + len(row)]
            return wanted & (row % np.uint64(parts) == part) if parts > 1 else wanted

        number, value = _gathered((np.asarray(shard[band]) for shard in bands), mine)
        order = np.argsort(value, kind="stable")
        number = number[order]
        leader = first_of_runs(value[order])
        same = np.flatnonzero(leader < np.arange(len(leader)))
        yield number[same - 1], number[same]
        further = same[leader[same] < same - 1]
        yield number[leader[further]], number[further]


def first_of_runs(values: Array) -> Array:
    """For every place in sorted values (or rows of them), the place at which the run of equal ones begins."""
    differs = values[1:] != values[:-1]
    head = np.concatenate(([True], differs if values.ndim == 1 else differs.any(axis=1)))[: len(values)]
    return np.maximum.accumulate(np.where(head, np.arange(len(values)), 0))


def _gathered(shards: Iterable[Array], mine: Callable[[Array, int], Array]) -> tuple[Array, Array]:
    """Numbers and rows of what ``mine`` takes of every shard, given the shard and the number of its first row."""
    numbers, values = [], []
    first = 0
    for shard in shards:
        taken = mine(shard, first)
        numbers.append(np.flatnonzero(taken) + first)
        values.append(np.asarray(shard[taken]))
        first += len(shard)
    return np.concatenate(numbers), np.concatenate(values)


def _unite(label: Array, one: Array, other: Array) -> None:
    """Join the groups of the pairs; a group is called by its smallest document."""
    while len(one):
        low = np.minimum(label[one], label[other])
        high = np.maximum(label[one], label[other])
        np.minimum.at(label, high, low)
        # Pointers to pointers are cut short until every document points to the smallest that it is joined to so far.
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label[:] = shorter
        apart = label[one] != label[other]
        one, other = one[apart], other[apart]


def first_of_equal(keys: Sequence[Array]) -> Array:
    """For every row of the (shard-wise) 128-bit ``keys``, the number of the first row that is the same."""
    count = sum(map(len, keys))
    label = np.arange(count)
    parts = -(-count // _PART)
    for part in range(parts):

        def mine(rows: Array, first: int, part: int = part) -> Array:
            return np.asarray(rows[:, 0] % np.uint64(parts) == part)

        number, value = _gathered(keys, mine)
        order = np.lexsort((number, value[:, 1], value[:, 0]))
        number = number[order]
        label[number] = number[first_of_runs(value[order])]
    return label
