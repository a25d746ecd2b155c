"""Which messages are for training and which are held out, so that none is on both sides.

Messages that share a source text or a translation belong to one group (union-find), and a group goes to one split as a
whole, by a seeded hash of its first key. Nothing else decides: neither the order of files nor the number of messages,
nor what a data set later drops, so that data sets of different kinds from one source agree.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable

from data_prep.common.settings import SPLITS, SplitSettings


class Groups:
    """Disjoint sets of keys."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, keys: Iterable[str]) -> None:
        """Put all ``keys`` into one group."""
        first: str | None = None
        for name in keys:
            root = self.find(name)
            if first is None:
                first = root
            elif root != first:
                # The smaller name is the root, so a group has the same root whatever the order of joining.
                first, other = min(first, root), max(first, root)
                self._parent[other] = first

    def find(self, name: str) -> str:
        """Root of the group of ``name``: its smallest key. A new key is a group of its own."""
        parent = self._parent
        root = name
        while (above := parent.setdefault(root, root)) != root:
            root = above
        while parent[name] != root:
            parent[name], name = root, parent[name]
        return root

    def roots(self) -> Counter[str]:
        """Roots, with the number of keys of their groups."""
        return Counter(self.find(name) for name in list(self._parent))


class Assignment:
    """Split of every key of ``groups``."""

    def __init__(self, groups: Groups, split: SplitSettings) -> None:
        self._groups = groups
        self._split = split
        self.sizes = groups.roots()

    def of(self, name: str) -> str:
        """Split of the group that ``name`` is in."""
        return assign(self._groups.find(name), self._split)

    @property
    def digest(self) -> str:
        """Hex digest of all groups and their splits: data sets with the same digest share no message."""
        hasher = hashlib.sha256()
        for root in sorted(self.sizes):
            hasher.update(f"{root}\0{self.sizes[root]}\0{assign(root, self._split)}\n".encode())
        return hasher.hexdigest()

    def facts(self) -> dict[str, int | str]:
        """For the card."""
        largest = max(self.sizes.values(), default=0)
        return {"groups": len(self.sizes), "largest_group": largest, "digest": self.digest}


def assign(root: str, split: SplitSettings) -> str:
    """Split of a group by the seeded hash of its root."""
    number = number_of(root, split.seed) / 2**64
    return next((name for name, end in ends(split) if number < end), "train")


def number_of(root: str, seed: int) -> int:
    """64 bits by which a group falls into a split."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{root}".encode()).digest()[:8], "big")


def ends(split: SplitSettings) -> list[tuple[str, float]]:
    """Where the part of each split ends, in the order in which they are filled."""
    names = SPLITS[::-1]
    return list(zip(names, itertools.accumulate(split.parts()[name] for name in names), strict=True))
