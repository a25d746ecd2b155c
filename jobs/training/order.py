"""Which example is trained when. Standard library only.

An epoch is a permutation: it takes every example once. Batches are always full, and no example is twice in
one. Where an epoch ends inside a batch, the batch is filled with the first examples of the next epoch, which begins
with ones that the batch does not hold yet.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, overload

from jobs.training.examples import ExamplesError

if TYPE_CHECKING:
    from jobs.training.interface import WorkContext
    from jobs.training.settings import TrainingSettings

WINDOW = 16
"""Batches among which examples are grouped by length."""

_ROUNDS = 6


def left_over(count: int, batch: int, steps: int) -> int:
    """Examples of the last, unfinished epoch that ``steps`` still take: 0 where they end with an epoch."""
    return steps * batch % count


def tell_order(ctx: WorkContext, settings: TrainingSettings, count: int) -> None:
    """Tell the log and the events how many steps and epochs a stage takes of ``count`` examples."""
    taken = settings.steps * settings.batch_size
    rest = left_over(count, settings.batch_size, settings.steps)
    ctx.event("order", examples=count, steps=settings.steps, epochs=round(taken / count, 4), in_unfinished_epoch=rest)
    if ctx.rank == 0:
        print(
            f"{count:,} examples, batch_size {settings.batch_size:,}: {settings.steps:,} steps take {taken:,}, "
            f"{taken // count:,} whole epochs and {rest:,} examples of the next",
            flush=True,
        )


class TrainingOrder(Sequence[int]):
    """``steps * batch`` indices below ``count``, computed where they are asked for: memory does not grow with them."""

    def __init__(self, count: int, batch: int, steps: int, seed: int, lengths: Sequence[int] | None) -> None:
        self._count = count
        self._batch = batch
        self._size = steps * batch
        self._seed = seed
        self._lengths = lengths
        self._moved: list[dict[int, int]] = []
        self._grouped: tuple[int, array[int]] = (-1, array("q"))

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(self._size))]
        if not -self._size <= place < self._size:
            raise IndexError(place)
        epoch, at = divmod(int(place) % self._size, self._count)
        return self._row(epoch, at) if self._lengths is None else self._by_length(epoch)[at]

    def _row(self, epoch: int, at: int) -> int:
        """The example at a place of an epoch, before grouping."""
        return permuted(self._moved_of(epoch).get(at, at), self._count, _keys(self._seed, epoch))

    def _edges(self, epoch: int) -> tuple[int, int]:
        """(examples that fill the last batch of the epoch before, examples left over for a batch of the next one)."""
        head = -epoch * self._count % self._batch
        return head, (self._count - head) % self._batch

    def _moved_of(self, epoch: int) -> dict[int, int]:
        """Places of an epoch that are exchanged, so that its first examples are not those its first batch holds."""
        while len(self._moved) <= epoch:
            now = len(self._moved)
            head, _ = self._edges(now)
            self._moved.append({})
            if not head:
                continue
            _, tail = self._edges(now - 1)
            held = {self._row(now - 1, at) for at in range(self._count - tail, self._count)}
            free = (at for at in range(head, self._count) if self._row(now, at) not in held)
            moved = {at: next(free) for at in range(head) if self._row(now, at) in held}
            self._moved[now] = moved | {other: at for at, other in moved.items()}
        return self._moved[epoch]

    def _by_length(self, epoch: int) -> array[int]:
        """The examples of an epoch, whole batches of similar length together; the newest epoch asked for is kept."""
        if self._grouped[0] == epoch:
            return self._grouped[1]
        assert self._lengths is not None
        lengths = self._lengths
        rows = array("q", (self._row(epoch, at) for at in range(self._count)))
        head, tail = self._edges(epoch)
        rng = random.Random(f"{self._seed} {epoch}")
        end = self._count - tail
        for start in range(head, end, WINDOW * self._batch):
            part = sorted(rows[start : min(start + WINDOW * self._batch, end)], key=lambda index: lengths[index])
            batches = [part[at : at + self._batch] for at in range(0, len(part), self._batch)]
            rng.shuffle(batches)
            rows[start : start + len(part)] = array("q", (index for group in batches for index in group))
        self._grouped = (epoch, rows)
        return rows


def training_order(
    count: int, batch: int, steps: int, seed: int, lengths: Sequence[int] | None = None, where: str = "the data"
) -> TrainingOrder:
    """Which example is trained when: ``steps * batch`` indices below ``count``, fixed before training starts.

    The order depends on nothing but the arguments: not on the number of processes, not on where a run was interrupted.
    With ``lengths`` a batch holds examples of similar length and so little padding: ``WINDOW`` batches of one epoch are
    sorted by length, and the batches shuffled again.

    Raises:
        DataError: fewer examples than a batch takes, so that one would stand twice in it.
    """
    if count < batch:
        raise ExamplesError(
            f"{where}: {count} examples to train on, batch_size is {batch}, and no example is twice in a batch: "
            f"lower batch_size to at most {count}, or give more data"
        )
    return TrainingOrder(count, batch, steps, seed, lengths)


def permuted(index: int, count: int, keys: Sequence[int]) -> int:
    """Where a permutation of ``range(count)`` takes ``index``: a Feistel network over the next power of four, walked
    until the result is below ``count`` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains")."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        index = left << half | right
        if index < count:
            return index


def _mixed(value: int) -> int:
    """32 bits that all depend on all bits of ``value`` (the finalizer of MurmurHash3)."""
    value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


@lru_cache(maxsize=16)
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return tuple(int.from_bytes(digest[4 * at : 4 * at + 4], "little") for at in range(_ROUNDS))
