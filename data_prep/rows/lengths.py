"""Tokens of rows: counted, compared with what the trainer takes, packed."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.tokens.encoder import Encoder


@dataclass(frozen=True)
class Encoded:
    """A prompt and an answer as ids; the answer ends with the end token. Loss is on the answer only."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def encode(encoder: Encoder, prompt: str, answer: str, end: int) -> Encoded:
    """Ids of prompt and answer, tokenised together, as the model will meet them.

    They are divided where the prompt's own ids end. Where the last characters of the prompt merge with the first of the
    answer, the merged token counts to the answer.
    """
    alone = encoder.encode(prompt).tolist()
    whole = [*encoder.encode(prompt + answer).tolist(), end]
    split = 0
    while split < len(alone) and alone[split] == whole[split]:
        split += 1
    return Encoded(tuple(whole[:split]), tuple(whole[split:]))


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


def packed_row(rows: Sequence[Encoded]) -> Mapping[str, Any]:
    """One pack: ids, 1 where there is loss, and where each row begins (attention must not cross these)."""
    ids: list[int] = []
    mask: list[int] = []
    starts: list[int] = []
    for row in rows:
        starts.append(len(ids))
        ids += [*row.prompt, *row.answer]
        mask += [0] * len(row.prompt) + [1] * len(row.answer)
    return {"input_ids": ids, "loss_mask": mask, "seq_start_id": starts}
