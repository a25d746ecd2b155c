"""What two splits have in common: rows that are the same, prompts that are the same, texts that are nearly the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from data_prep.common import text

NEAR_ROWS = 100_000
"""Of a larger split so many rows are looked at: rows are in the order of their ids, so these are a sample."""
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
Texts = Sequence[tuple[str, ...]]
"""The rows of a split: prompt and answers, or one text."""


def between(splits: Mapping[str, Texts], dropped: Mapping[str, int]) -> dict[str, dict[str, int] | None]:
    """By kind and pair of splits (``train/test``), how many rows of the first say what one of the second says.

    ``exact``: the whole row, case and white space aside, with the rows that were ``dropped`` for it; ``prompts``: the
    first text of rows of several; ``near``: 0.8 of all 5-word runs, None where numpy is not installed.
    """
    exact: Counter[str] = Counter(dropped)
    prompts: Counter[str] = Counter()
    whole: dict[str, set[bytes]] = {}
    asked: dict[str, set[bytes]] = {}
    for one in ("test", "validation", "train"):
        whole[one], asked[one] = set(), set()
        for row in splits.get(one, ()):
            texts = [text.folded(part) for part in row]
            found, first = _digest(*texts), _digest(texts[0]) if len(texts) > 1 else b""
            for other in [other for left, other in PAIRS if left == one]:
                exact[f"{one}/{other}"] += found in whole[other]
                prompts[f"{one}/{other}"] += first in asked[other]
            if one != "train":
                whole[one].add(found)
                asked[one] |= {first} - {b""}
    most = max((len(rows) for rows in splits.values()), default=0)
    near = "near" if most <= NEAR_ROWS else f"near (of {NEAR_ROWS:,} rows of a split)"
    return {"exact": _counted(exact), "prompts": _counted(prompts), near: _near(splits)}


def _counted(found: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(found.items()) if count}


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).digest()


def _near(splits: Mapping[str, Texts]) -> dict[str, int] | None:
    try:
        from data_prep.dedup.across import Table
    except ImportError:
        return None
    found = {}
    for other in ("validation", "test"):
        if not (held := splits.get(other)):
            continue
        table = Table("\n".join(row) for row in held[:NEAR_ROWS])
        for one in [one for one, name in PAIRS if name == other]:
            found[f"{one}/{other}"] = table.near("\n".join(row) for row in splits.get(one, ())[:NEAR_ROWS])
    return _counted(found)
