"""Near-duplicates among planted ones: ours beside rensa, datasketch, text-dedup and datatrove, on the same texts, one
after the other, one core.

    python benchmarks/data_dedup.py CORPUS.jsonl [DOCUMENTS] [SIDE ...]    # ROUNDS=3: more than one

Half of the documents get a copy in which single words are replaced until the Jaccard similarity of 5-word shingles,
computed exactly, has fallen to 0.8 (to 0.5 for every other one: those are no duplicates). All sides use 5-word
shingles and 256 values in 32 bands of 8; those that can compare whole signatures (ours, rensa, datasketch) take pairs
from 0.75 on, while text-dedup and datatrove take every pair that agrees in a band, as their own programs do. CPU
seconds of the process are compared. Recall: planted pairs that are in one group (a copy may have been found as the
duplicate of another copy). Precision: documents left out that are exactly similar, by 0.7 or more, to another one of
their group (real text has duplicates of its own). A side whose library is missing is left out, and says so.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

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


def ours(texts: list[str], similarity: float = 0.8) -> Pairs:
    from data_prep.dedup import minhash, near
    from data_prep.dedup.shingles import words

    signatures, bands, usable = [], [], []
    for start in range(0, len(texts), 500):
        found, good = minhash.signatures(words(texts[start : start + 500]))
        signatures.append(minhash.short(found))
        bands.append(minhash.bands(found))
        usable.append(good)
    label = near.groups(near.Stacked(signatures), bands, np.concatenate(usable), similarity)
    return {(int(first), number) for number, first in enumerate(label) if first != number}


def ours_wider(texts: list[str]) -> Pairs:
    """Takes more pairs, to find as many as those that take every pair of a band: for a comparison at equal recall."""
    return ours(texts, 0.76)


def _first_of_near(index: Any, signatures: Iterable[Any]) -> Pairs:
    """Each text with the first before it whose whole signature is near, by an index of bands."""
    kept: list[Any] = []
    found: Pairs = set()
    for number, own in enumerate(signatures):
        close = [other for other in index.query(own) if own.jaccard(kept[other]) >= 0.75]
        if close:
            found.add((min(close), number))
        index.insert(number, own)
        kept.append(own)
    return found


def datasketch(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=256, params=(32, 8))

    def signed(text: str) -> MinHash:
        own = MinHash(num_perm=256)
        own.update_batch([shingle.encode() for shingle in shingles(text)])
        return own

    return _first_of_near(index, map(signed, texts))


def rensa(texts: list[str]) -> Pairs:
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=0.75, num_perm=256, num_bands=32)

    def signed(text: str) -> RMinHash:
        own = RMinHash(num_perm=256, seed=1)
        own.update(shingles(text))
        return own

    return _first_of_near(index, map(signed, texts))


def text_dedup(texts: list[str]) -> Pairs:
    """The functions of its program minhash, without the reading and writing of data sets around them."""
    from text_dedup import minhash
    from text_dedup.utils import UnionFind
    from text_dedup.utils.hashfunc import xxh3_32hash

    dice = np.random.RandomState(42)
    prime = np.uint32((1 << 32) - 5)
    factors = tuple(dice.randint(low, prime, size=256, dtype=np.uint32) for low in (1, 0))
    tables: list[dict[bytes, set[int]]] = [defaultdict(set) for _ in range(32)]
    for number, text in enumerate(texts):
        found = minhash.embed_func(
            text,
            number,
            num_perm=256,
            ngram_size=5,
            min_length=5,
            hashranges=[(8 * n, 8 * n + 8) for n in range(32)],
            permutations=factors,
            hash_func=xxh3_32hash,
            dtype=np.uint32,
            max_hash=np.uint32((1 << 32) - 1),
            modulo_prime=prime,
        )
        for table, band in zip(tables, found[minhash.SIGNATURE_COLUMN], strict=True):
            table[band].add(number)
    joined = UnionFind()
    for table in tables:
        for cluster in table.values():
            if len(cluster) > 1:
                for number in cluster:
                    joined.union(number, min(cluster))
    roots = [joined.find(number) for number in range(len(texts))]
    return {(root, number) for number, root in enumerate(roots) if root != number}


def datatrove(texts: list[str]) -> Pairs:
    """Its first three steps, in a directory of their own; words by our pattern: its own for English are a download."""
    import struct
    import tempfile
    from pathlib import Path

    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return _WORD.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    with tempfile.TemporaryDirectory() as folder:
        config = MinhashConfig(n_grams=5, num_buckets=32, hashes_per_bucket=8, hash_config=HashConfig(precision=32))
        documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts))
        MinhashDedupSignature(f"{folder}/signatures", config, Words()).run(documents, 0, 1)
        for bucket in range(32):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(None, bucket, 32)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters", config, save_cluster_id=True).run(None, 0, 1)
        groups: dict[int, list[int]] = defaultdict(list)
        written = Path(folder, "clusters/000000.clusters")
        content = written.read_bytes() if written.exists() else b""
        for number, cluster in struct.iter_unpack("<II", content):
            groups[cluster].append(number)
    return {(min(members), number) for members in groups.values() for number in members if number != min(members)}


def main() -> None:
    texts, planted = plant(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4000)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB, {len(planted)} duplicates at Jaccard 0.80, as many pairs at 0.50")
    sides: dict[str, Callable[[list[str]], Pairs]] = {
        "ours": ours, "wider": ours_wider, "rensa": rensa, "datasketch": datasketch, "text-dedup": text_dedup,
        "datatrove": datatrove,
    }  # fmt: skip
    wanted = sys.argv[3:] or list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in wanted}
    said: dict[str, str] = {}
    for name in list(wanted):
        try:
            sides[name](texts[:10])  # imports
        except ImportError as error:
            print(f"{name:<11} left out: {error}")
            wanted.remove(name)
    for number in range(int(os.environ.get("ROUNDS", "1"))):
        for name in wanted if number % 2 == 0 else wanted[::-1]:
            start = time.process_time()
            found = sides[name](texts)
            seconds[name].append(time.process_time() - start)
            if name not in said:
                label = grouped(found, len(texts))
                recall = sum(label[one] == label[other] for one, other in planted) / len(planted)
                said[name] = f"recall {recall:.3f}  precision {right(texts, label):.3f}"
            print(f"  round {number + 1} {name:<11} {seconds[name][-1]:7.2f} s CPU", flush=True)
    for name in wanted:
        middle = statistics.median(seconds[name])
        factors = [own / base for own, base in zip(seconds[name], seconds[wanted[0]], strict=True)]
        print(
            f"{name:<11} {middle:7.2f} s CPU {size / middle:6.1f} MB/s  {wanted[0]} is "
            f"{statistics.median(factors):5.1f} x as fast  {said[name]}"
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print((__doc__ or "").strip())
    else:
        main()
