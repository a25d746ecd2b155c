"""Texts of one split that are near those of another: a table of the held-out ones, past which the others go in batches.

Memory: about a kilobyte for each held-out text, whatever the number of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from data_prep.common.text import batched
from data_prep.dedup import minhash
from data_prep.dedup.shingles import words

Array = np.ndarray[Any, Any]
SIMILARITY = 0.8
_BATCH_CHARS = 1 << 20
_COMPARED = 64
"""Texts of the table that one is compared with for each band that they share: rows of one form, with another number in
each, share bands by the hundred thousand, and are not near for it."""


Signed = tuple[Array, Array]
"""Signatures and bands of some texts."""


class SignatureTable:
    """Signatures of the texts of one split."""

    def __init__(self, parts: Sequence[Signed]) -> None:
        self._signatures = np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, minhash.BINS))
        bands = np.concatenate([part[1] for part in parts], axis=1) if parts else np.zeros((minhash.BANDS, 0))
        self._order = np.argsort(bands, axis=1, kind="stable")
        self._bands = np.take_along_axis(bands, self._order, axis=1)

    def near(self, texts: Signed) -> int:
        """How many of ``texts`` share ``SIMILARITY`` of their 5-word runs with one of the table."""
        return int(self._hits(*texts).sum()) if len(self._signatures) else 0

    def _hits(self, signatures: Array, bands: Array) -> Array:
        found = np.zeros(len(signatures), bool)
        for band, known, order in zip(bands, self._bands, self._order, strict=True):
            start, end = np.searchsorted(known, band, "left"), np.searchsorted(known, band, "right")
            end = np.minimum(end, start + _COMPARED)
            at, numbers = start.copy(), np.flatnonzero((start < end) & ~found)
            while len(numbers):
                alike = (signatures[numbers] == self._signatures[order[at[numbers]]]).mean(axis=1) >= SIMILARITY
                found[numbers[alike]] = True
                at[numbers] += 1
                numbers = numbers[~alike & (at[numbers] < end[numbers])]
        return found


def signed(texts: Iterable[str]) -> Iterator[Signed]:
    """Those of the texts that have any word, in batches."""
    for batch in batched(texts, _BATCH_CHARS, len):
        signatures, usable = minhash.signatures(words(batch))
        yield minhash.short(signatures[usable]), minhash.bands(signatures[usable])
