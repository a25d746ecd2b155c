"""Decontamination: documents that share a long run of words with an evaluation set.

The rule is that of Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C: a shared run of 13 words.
Texts of an evaluation set that are shorter are looked for as a whole if they have at least ``SHORTEST`` words; shorter
ones ("Yes") would accuse every document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from data_prep.dedup.shingles import Words, words

WIDTH = 13
SHORTEST = 8
_FILTER_BITS = 22


class Overlap:
    """The runs of words of some evaluation texts."""

    def __init__(self, texts: Iterable[str], width: int = WIDTH) -> None:
        found: dict[int, list[np.ndarray[Any, Any]]] = {}
        for text in texts:
            own = words([text])
            count = min(width, len(own.hashes))
            if count >= min(SHORTEST, width):
                found.setdefault(count, []).append(own.shingles(count)[0])
        self._runs = {count: np.unique(np.concatenate(runs)) for count, runs in found.items()}
        self._filters = {count: _filter(runs) for count, runs in self._runs.items()}

    def hits(self, documents: Words) -> np.ndarray[Any, Any]:
        """Number of runs that each document shares with the evaluation texts."""
        count = np.zeros(documents.documents, np.int64)
        for width, runs in self._runs.items():
            hashes, owner = documents.shingles(width)
            # Most runs are in no evaluation text: a table of bits tells so faster than a search does.
            maybe = self._filters[width][(hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)]
            hashes, owner = hashes[maybe], owner[maybe]
            place = np.minimum(np.searchsorted(runs, hashes), len(runs) - 1)
            count += np.bincount(owner[runs[place] == hashes], minlength=documents.documents)
        return count


def _filter(runs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    table = np.zeros(1 << _FILTER_BITS, bool)
    table[(runs >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)] = True
    return table
