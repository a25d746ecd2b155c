"""A sequence whose entries are made when they are looked at: of 100,000 files each mapped one is a descriptor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")


class OneByOne(Sequence[V], Generic[K, V]):
    """What ``make`` returns for each of ``keys``; nothing is kept."""

    def __init__(self, keys: Sequence[K], make: Callable[[K], V]) -> None:
        self._keys = keys
        self._make = make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> V: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[V]: ...

    def __getitem__(self, place: int | slice) -> V | Sequence[V]:
        if isinstance(place, slice):
            return OneByOne(self._keys[place], self._make)
        return self._make(self._keys[place])
