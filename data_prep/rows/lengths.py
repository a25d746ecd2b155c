"""Rows packed to sequences of one length."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.encoding.rows import Tokens


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


def packed_row(rows: Sequence[Tokens]) -> Mapping[str, Any]:
    """One pack: ids, 1 where there is loss, and where each row begins (attention must not cross these)."""
    ids: list[int] = []
    mask: list[int] = []
    starts: list[int] = []
    for row in rows:
        starts.append(len(ids))
        ids += row.ids
        mask += map(int, row.mask)
    return {"input_ids": ids, "loss_mask": mask, "seq_start_id": starts}
