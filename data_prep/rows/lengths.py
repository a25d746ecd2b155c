"""Rows packed to sequences of one length."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of the rows of each pack of at most ``size`` tokens: best fit, the longest rows first.

    Best fit decreasing needs at most 11/9 of the fewest packs (Johnson, 1973). Rows longer than ``size`` are alone.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, pack), sorted
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        at = bisect.bisect_left(room, (lengths[number], -1))
        if at < len(room):
            free, chosen = room.pop(at)
            packs[chosen].append(number)
        else:
            free, chosen = size, len(packs)
            packs.append([number])
        bisect.insort(room, (free - lengths[number], chosen))
    return packs


def packed_row(rows: Sequence[np.ndarray[Any, Any]]) -> Mapping[str, Any]:
    """One pack: ids, 1 where there is loss, and where each row begins (attention must not cross these).

    Of each row its ids are given as twice their number, and 1 more where there is loss.
    """
    both = np.concatenate(rows)
    starts = np.cumsum([0, *map(len, rows[:-1])])
    return {"input_ids": (both >> 1).tolist(), "loss_mask": (both & 1).tolist(), "seq_start_id": starts.tolist()}
