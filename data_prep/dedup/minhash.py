"""MinHash signatures by one permutation: each shingle is hashed once, and the smallest hash of each bin is kept.

Bins: Li, Owen and Zhang, "One Permutation Hashing" (2012). Empty bins borrow from others by a fixed random walk:
Shrivastava, "Optimal Densification for Fast and Accurate Minwise Hashing" (2017). The share of bins in which two
signatures agree estimates the Jaccard similarity of the two sets of shingles; its standard deviation at similarity s is
sqrt(s (1 - s) / BINS), 0.025 at s = 0.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.dedup.shingles import Words, mix

Array = np.ndarray[Any, Any]

BINS = 256
BANDS, ROWS = 32, 8
"""Of BANDS bands of ROWS bins, one that agrees makes a candidate: with probability 1 - (1 - s^8)^32, which is 0.997 at
similarity 0.8, 0.85 at 0.7, 0.42 at 0.6 and 0.12 at 0.5; candidates are then compared by the whole signature."""
WIDTH = 5
"""Words of a shingle."""
_EMPTY = np.uint32(0xFFFFFFFF)
_WALK = 128

_RANDOM = np.random.Generator(np.random.PCG64(20170701))
_NEXT = _RANDOM.integers(BINS, size=(_WALK, BINS))
_FACTORS = _RANDOM.integers(1 << 62, size=ROWS, dtype=np.uint64) * 2 + 1


def signatures(words: Words) -> tuple[Array, Array]:
    """(documents, BINS) signatures of 32 bits, and which documents have any word; the others' rows say nothing."""
    hashes, owner = words.shingles(WIDTH)
    flat = np.full(words.documents * BINS, _EMPTY, np.uint32)
    place = owner * BINS + (hashes >> np.uint64(56)).astype(np.int64)
    values = ((hashes >> np.uint64(20)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    np.minimum.at(flat, place, np.minimum(values, _EMPTY - np.uint32(1)))
    found = flat.reshape(words.documents, BINS)
    return _filled(found), (found != _EMPTY).any(axis=1)


def _filled(found: Array) -> Array:
    """Every empty bin takes the value of a bin that is not, by a walk that depends on the bin alone."""
    filled = found.copy()
    for step in range(_WALK):
        empty = filled == _EMPTY
        if not empty.any():
            return filled
        rows = np.flatnonzero(empty.any(axis=1))
        part, donor = filled[rows], found[rows][:, _NEXT[step]]
        filled[rows] = np.where(part == _EMPTY, donor, part)
    # What the walk has not filled (documents of very few shingles) takes the next value to the right, around the end.
    for row in np.flatnonzero((filled == _EMPTY).any(axis=1)):
        full = np.flatnonzero(found[row] != _EMPTY)
        if len(full):
            empty_bins = np.flatnonzero(filled[row] == _EMPTY)
            filled[row, empty_bins] = found[row, full[np.searchsorted(full, empty_bins) % len(full)]]
    return filled


def bands(signature: Array) -> Array:
    """(BANDS, documents) hashes of the bands of ``signatures``."""
    rows = signature.reshape(len(signature), BANDS, ROWS).astype(np.uint64)
    return mix((mix(rows + np.uint64(0x632BE59BD9B4E019)) * _FACTORS).sum(axis=2, dtype=np.uint64)).T.copy()


def short(signature: Array) -> Array:
    """The lower half of every value: what is kept on disk. Two different values agree in it once in 65,536."""
    return (signature & np.uint32(0xFFFF)).astype(np.uint16)
