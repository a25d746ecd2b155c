"""Several rows in one sequence: which rows go together. Standard library only."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of the rows of each sequence, by best fit decreasing: the longest row first, each into the sequence that
    it fills most (Johnson 1973, "Near-optimal bin packing algorithms").

    The same rows always give the same sequences. NeMo's own first fit adds up every open sequence again for every row.

    Args:
        lengths: places that each row takes; at most ``room``.
        room: places of a sequence.
    """
    found: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (places left, sequence), sorted
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(free, (lengths[row], -1))
        if at < len(free):
            left, sequence = free.pop(at)
        else:
            left, sequence = room, len(found)
            found.append([])
        found[sequence].append(row)
        insort(free, (left - lengths[row], sequence))
    return found
