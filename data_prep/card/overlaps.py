"""What two splits have in common: rows that are the same, prompts that are the same, texts that are nearly the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from data_prep.common import text

NEAR_ROWS = 100_000
"""Of a larger split so many rows are looked at: rows are in the order of their ids, so these are a sample."""
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split: ``digests`` of each, and all ``texts`` (prompt and answers, or one text)."""

    count: int
    digests: Iterable[tuple[int, int]]
    texts: Callable[[], Iterator[tuple[str, ...]]]


def digests(row: tuple[str, ...]) -> tuple[int, int]:
    """Of all texts of a row, and of the first one of several (else 0); case and white space do not count."""
    texts = [text.folded(part) for part in row]
    return text.digest(*texts), text.digest(texts[0]) if len(texts) > 1 else 0


def between(splits: Mapping[str, SplitRows], dropped: Mapping[str, int]) -> dict[str, dict[str, int] | None]:
    """By kind and pair of splits (``train/test``), how many rows of the first say what one of the second says.

    ``exact``: the whole row, case and white space aside, with the rows that were ``dropped`` for it; ``prompts``: the
    first text of rows of several; ``near``: 0.8 of all 5-word runs, None where numpy is not installed.
    """
    exact: Counter[str] = Counter(dropped)
    prompts: Counter[str] = Counter()
    whole: dict[str, set[int]] = {}
    asked: dict[str, set[int]] = {}
    for one in ("test", "validation", "train"):
        whole[one], asked[one] = set(), set()
        others = [other for left, other in PAIRS if left == one]
        for found, first in splits[one].digests if one in splits else ():
            for other in others:
                exact[f"{one}/{other}"] += found in whole[other]
                prompts[f"{one}/{other}"] += first in asked[other]
            if one != "train":
                whole[one].add(found)
                asked[one] |= {first} - {0}
    most = max((rows.count for rows in splits.values()), default=0)
    near = "near" if most <= NEAR_ROWS else f"near (of {NEAR_ROWS:,} rows of a split)"
    return {"exact": _counted(exact), "prompts": _counted(prompts), near: _near(splits)}


def _counted(found: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(found.items()) if count}


def _near(splits: Mapping[str, SplitRows]) -> dict[str, int] | None:
    try:
        from data_prep.dedup import across
    except ImportError:
        return None
    found: Counter[str] = Counter()
    tables: dict[str, across.SignatureTable] = {}
    for one in [name for name in ("test", "validation", "train") if name in splits]:
        parts = []
        for part in across.signed(map("\n".join, islice(splits[one].texts(), NEAR_ROWS))):
            found.update({f"{one}/{other}": table.near(part) for other, table in tables.items()})
            parts += [part] * (one != "train")
        if parts:
            tables[one] = across.SignatureTable(parts)
    return _counted(found)
