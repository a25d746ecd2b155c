"""Hashes of words and of runs of words, for many documents at once, in numpy.

A word is a run of ASCII letters and digits and of bytes of other scripts, in lower case; a character from U+3000 on
(ideographs, kana, Hangul) is a word of its own, since these scripts may write no spaces. So is an operator: "12 + 30"
does not say what "12 * 30" says; of hyphens only one before a digit. Everything else only separates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_SEPARATOR, _LETTER, _ALONE, _TAIL = 0, 1, 2, 3
_OPERATORS = "+*/=<>^%&|~"
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _byte_classes() -> Array:
    classes = np.zeros(256, np.uint8)
    for byte in range(256):
        if chr(byte).isalnum() and byte < 0x80:
            classes[byte] = _LETTER
        elif chr(byte) in _OPERATORS:
            classes[byte] = _ALONE
        elif 0x80 <= byte < 0xC0:
            classes[byte] = _TAIL
        elif byte >= 0xE3:
            classes[byte] = _ALONE
        elif byte >= 0xC0:
            classes[byte] = _LETTER
    return classes


_CLASSES = _byte_classes()
# Fixed odd factors (PCG64 of a fixed seed): the same shingle has the same hash on every machine and in every run.
_FACTORS = np.random.Generator(np.random.PCG64(20240607)).integers(1 << 62, size=512, dtype=np.uint64) * 2 + 1
_PLACES, _STEPS = _FACTORS[:256], _FACTORS[256:]


def mix(values: Array) -> Array:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit moves every output bit. Changes
    ``values`` in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@dataclass(frozen=True)
class Words:
    """Hashes of the words of some documents, one document after the other; ``owner`` is the document of each."""

    hashes: Array
    owner: Array
    documents: int

    def shingles(self, width: int) -> tuple[Array, Array]:
        """Hashes of all runs of ``width`` words, and the document of each.

        A document with fewer words, but at least one, has one shingle: all of its words.
        """
        count = len(self.hashes)
        if count == 0:
            return self.hashes, self.owner
        found = self.hashes * _STEPS[0]
        whole = np.ones(count, bool)
        for step in range(1, width):
            same = np.zeros(count, bool)
            np.equal(self.owner[step:], self.owner[:-step], out=same[: max(0, count - step)])
            found[: max(0, count - step)] += np.where(
                same[: max(0, count - step)], self.hashes[step:] * _STEPS[step], np.uint64(0)
            )
            whole = same
        sizes = np.bincount(self.owner, minlength=self.documents)
        firsts = np.concatenate(([0], np.cumsum(sizes)[:-1]))[(sizes > 0) & (sizes < width)]
        whole[firsts] = True
        return mix(found[whole]), self.owner[whole]


def words(texts: Sequence[str]) -> Words:
    """The words of ``texts``. Memory: about 30 bytes per byte of text, so give it a megabyte or two at a time."""
    raw = [text.lower().encode("utf-8", "surrogatepass") for text in texts]
    buffer = np.frombuffer(b"\n".join(raw) + b"\n", np.uint8)
    sizes = np.fromiter((len(one) + 1 for one in raw), np.int64, len(raw))
    classes = _CLASSES[buffer]
    following = np.append(buffer[1:], np.uint8(0))
    classes[(buffer == ord("-")) & (following >= ord("0")) & (following <= ord("9"))] = _ALONE
    inside = classes > _SEPARATOR
    before = np.empty_like(inside)
    before[0] = False
    before[1:] = inside[:-1] & ~((classes == _ALONE) & (buffer < 0x80))[:-1]  # "2+3" is three words
    starts = (classes == _ALONE) | ((classes != _TAIL) & inside & ~before)
    first = np.flatnonzero(starts)
    if len(first) == 0:
        return Words(np.zeros(0, np.uint64), np.zeros(0, np.int64), len(texts))
    letters = buffer[inside].astype(np.uint64) + np.uint64(1)
    begin = (np.cumsum(inside) - 1)[first]
    lengths = np.diff(np.append(begin, len(letters)))
    place = np.arange(len(letters)) - np.repeat(begin, lengths)
    letters *= _PLACES[place & 255]
    hashes = np.add.reduceat(letters, begin)
    hashes += lengths.astype(np.uint64) * _ODD
    owner = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(first, np.concatenate(([0], np.cumsum(sizes))))))
    return Words(mix(hashes), owner, len(texts))
