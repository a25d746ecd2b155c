"""Which example is trained when. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Sequence


def training_order(
    count: int, batch: int, steps: int, seed: int, lengths: Sequence[int] | None = None, window: int = 16
) -> list[int]:
    """Which example is trained when: ``steps * batch`` indices below ``count``, fixed before training starts.

    The order depends on nothing but the arguments: not on the number of processes, not on where a run was interrupted.
    Every pass over the data is shuffled anew. With ``lengths``, each ``window`` of batches is sorted by length and its
    batches shuffled again, so that a batch holds examples of similar length and little padding.
    """
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch:
        epoch = list(range(count))
        rng.shuffle(epoch)
        order.extend(epoch)
    del order[steps * batch :]
    if lengths is None:
        return order
    grouped: list[int] = []
    for start in range(0, len(order), window * batch):
        part = sorted(order[start : start + window * batch], key=lambda index: lengths[index])
        batches = [part[at : at + batch] for at in range(0, len(part), batch)]
        rng.shuffle(batches)
        grouped.extend(index for group in batches for index in group)
    return grouped
