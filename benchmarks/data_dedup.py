"""Near-duplicates among planted ones: ours beside datasketch and rensa, on the same texts, one after the other, one
core.

    python benchmarks/data_dedup.py CORPUS.jsonl [DOCUMENTS]

Half of the documents get a copy in which single words are replaced until the Jaccard similarity of 5-word shingles,
computed exactly, has fallen to 0.8 (to 0.5 for every other one: those are no duplicates). All sides use the same words
and shingles, 256 values and a threshold of 0.75 on the estimate. CPU seconds of the
process are compared. Recall: planted pairs that are in one group (a copy may have been found as the duplicate of
another copy). Precision: documents left out that are exactly similar, by 0.7 or more, to another one of their group
(real text has duplicates of its own).
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable

import numpy as np

_WORD = re.compile(r"[^\W_]+")
Pairs = set[tuple[int, int]]


def shingles(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))]


def plant(corpus: str, count: int) -> tuple[list[str], Pairs]:
    dice = random.Random(3)
    texts: list[str] = []
    seen: set[str] = set()
    with open(corpus, encoding="utf-8") as stream:
        for line in stream:
            text = json.loads(line)["text"]
            words = _WORD.findall(text)[1000:1400]  # headers and licences are duplicates of their own
            if len(words) == 400 and len(set(words)) > 120 and words[0] + words[200] + words[399] not in seen:
                seen.add(words[0] + words[200] + words[399])
                texts.append(" ".join(words))
            if len(texts) == count:
                break
    planted: Pairs = set()
    for number in range(len(texts) // 2):
        target = 0.8 if number % 2 else 0.5
        words, own = texts[number].split(), set(shingles(texts[number]))
        while True:
            other = set(shingles(" ".join(words)))
            if len(own & other) <= (target + 0.004) * len(own | other):
                break
            words[dice.randrange(len(words))] = f"q{dice.randrange(10**6)}"
        if target == 0.8:
            planted.add((number, len(texts)))
        texts.append(" ".join(words))
    return texts, planted


def _jaccard(one: str, other: str) -> float:
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def grouped(found: Pairs, count: int) -> list[int]:
    """For every document the first one of the group that the pairs make."""
    label = list(range(count))

    def root(number: int) -> int:
        while label[number] != number:
            number = label[number]
        return number

    for one, other in found:
        low, high = sorted((root(one), root(other)))
        label[high] = low
    return [root(number) for number in range(count)]


def right(texts: list[str], label: list[int]) -> float:
    """Share of the documents left out that are alike to another one of their group."""
    members: dict[int, list[int]] = {}
    for number, first in enumerate(label):
        members.setdefault(first, []).append(number)
    gone = [number for number, first in enumerate(label) if first != number]
    good = sum(
        any(other != number and _jaccard(texts[other], texts[number]) >= 0.7 for other in members[label[number]])
        for number in gone
    )
    return good / max(1, len(gone))


def ours(texts: list[str]) -> Pairs:
    from data_prep.dedup import minhash, near
    from data_prep.dedup.shingles import words

    signatures, bands, usable = [], [], []
    for start in range(0, len(texts), 500):
        found, good = minhash.signatures(words(texts[start : start + 500]))
        signatures.append(minhash.short(found))
        bands.append(minhash.bands(found))
        usable.append(good)
    label = near.groups(near.Stacked(signatures), bands, np.concatenate(usable), 0.8)
    return {(int(first), number) for number, first in enumerate(label) if first != number}


def datasketch(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=256, params=(32, 8))
    kept: dict[int, MinHash] = {}
    found: Pairs = set()
    for number, text in enumerate(texts):
        own = MinHash(num_perm=256)
        own.update_batch([shingle.encode() for shingle in shingles(text)])
        close = [other for other in index.query(own) if own.jaccard(kept[other]) >= 0.75]
        if close:
            found.add((min(close), number))
        index.insert(number, own)
        kept[number] = own
    return found


def rensa(texts: list[str]) -> Pairs:
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=0.75, num_perm=256, num_bands=32)
    kept: dict[int, RMinHash] = {}
    found: Pairs = set()
    for number, text in enumerate(texts):
        own = RMinHash(num_perm=256, seed=1)
        own.update(shingles(text))
        close = [other for other in index.query(own) if own.jaccard(kept[other]) >= 0.75]
        if close:
            found.add((min(close), number))
        index.insert(number, own)
        kept[number] = own
    return found


def main() -> None:
    texts, planted = plant(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4000)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB, {len(planted)} duplicates at Jaccard 0.80, as many pairs at 0.50")
    base = 0.0
    ours(texts[:10])  # imports
    sides: dict[str, Callable[[list[str]], Pairs]] = {"ours": ours, "rensa": rensa, "datasketch": datasketch}
    for name, side in sides.items():
        start = time.process_time()
        found = side(texts)
        seconds = time.process_time() - start
        base = base or seconds
        label = grouped(found, len(texts))
        recall = sum(label[one] == label[other] for one, other in planted) / len(planted)
        precision = right(texts, label)
        print(f"{name:<11} {seconds:7.2f} s CPU {size / seconds:6.1f} MB/s  ours is {seconds / base:5.1f} x as fast  "
              f"recall {recall:.3f}  precision {precision:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print((__doc__ or "").strip())
    else:
        main()
