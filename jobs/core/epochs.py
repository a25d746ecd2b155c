"""How many steps epochs take: counted by the job, and by ``plan`` where the rows are known."""

from __future__ import annotations

import math


def steps_of(count: int, batch: int, epochs: float) -> int:
    """Steps that take ``count`` examples ``epochs`` times: the last batch of all is filled up from the next epoch."""
    return max(1, math.ceil(round(epochs * count, 6) / batch))
