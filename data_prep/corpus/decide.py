"""What only all shards together show: duplicates, repeated ids, the replay mix, limits. Writes which documents are
kept.

Documents are numbered in the order of files and lines, so no decision depends on how they were divided into shards.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.card.account import Account
from data_prep.common.errors import DataError
from data_prep.common.one_by_one import OneByOne
from data_prep.common.settings import SPLITS
from data_prep.corpus.workdir import BANDS, DOCUMENTS, ENDS, KEEP, MARKS, SIGNATURES, WorkDir
from data_prep.dedup import near

Array = np.ndarray[Any, Any]
_PAIRS_SHOWN = 10


class CorpusDecision:
    """Marks of all shards, and the reason for which each document goes (0: it stays)."""

    def __init__(self, workdir: WorkDir) -> None:
        self._workdir = workdir
        self.directories = [workdir.directory("read", number) for number in range(len(workdir.plan.shards))]
        self._sizes = [len(self._load(directory, MARKS)) for directory in self.directories]
        self._ends = np.cumsum(self._sizes)
        self.count = int(self._ends[-1])
        self.reason = np.zeros(self.count, np.uint8)
        self.reasons = ["kept"]

    @staticmethod
    def _load(directory: Path, path: str) -> Array:
        found: Array = np.load(directory / path, mmap_mode="r")
        return found

    def parts(self, path: str) -> Sequence[Array]:
        """An array of every shard, mapped while it is looked at: each that is mapped holds a file open."""
        return OneByOne(self.directories, lambda directory: self._load(directory, path))

    def digests(self) -> Sequence[Array]:
        """Of the documents of every shard."""
        return OneByOne(self.directories, lambda directory: self._load(directory, MARKS)["digest"])

    def all(self, name: str) -> Array:
        """What is known of all documents, in memory."""
        found: Array = np.concatenate([np.load(directory / MARKS)[name] for directory in self.directories])
        return found

    def drop(self, which: Array, reason: str) -> None:
        """Drop the documents ``which`` (a mask or numbers)."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.reason[which] = self.reasons.index(reason)

    @property
    def kept(self) -> Array:
        found: Array = self.reason == 0
        return found

    def place(self, number: int) -> str:
        """``file:line`` of a document."""
        shard, row = self.row(number)
        mark = self._load(self.directories[shard], MARKS)[row]
        return f"{self._workdir.plan.shards[shard][int(mark['piece'])].path}:{int(mark['line'])}"

    def row(self, number: int) -> tuple[int, int]:
        """Shard and row of a document."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, number - int(self._ends[shard]) + self._sizes[shard]

    def text(self, number: int) -> str:
        """The text of a document: for the few that are shown, since its shard is read up to there."""
        shard, row = self.row(number)
        with open(self.directories[shard] / DOCUMENTS, encoding="utf-8") as stream:
            return str(json.loads(next(itertools.islice(stream, row, None)))["text"])

    def save(self, directory: Path) -> None:
        """Write down which documents stay."""
        np.save(directory / KEEP, self.kept)
        np.save(directory / ENDS, self._ends)


def decide(workdir: WorkDir, progress: Callable[[int, int], None]) -> None:
    """Look at the marks of all shards and write, for each, which documents stay.

    Raises:
        DataError: an id is given to two different documents, nothing is left, or too little replay text is there.
    """
    recipe = workdir.plan.recipe
    decision = CorpusDecision(workdir)
    pairs: dict[str, list[tuple[str, str]]] = {}
    overlaps: dict[str, dict[str, int] | None] = {"exact": {}, "near": None}
    with workdir.result("decide") as (directory, facts):
        _own_ids(decision, recipe.on_error)
        first = near.first_of_equal(decision.digests())
        overlaps["exact"] = _across(decision, first)
        if recipe.exact_duplicates:
            pairs["duplicate"] = _drop_later(decision, first, "duplicate")
        del first
        if recipe.near_duplicates is not None:
            usable = decision.all("usable") & decision.kept
            signatures = near.Stacked(decision.parts(SIGNATURES))
            first = near.groups(signatures, decision.parts(BANDS), usable, recipe.near_duplicates, progress)
            overlaps["near"] = _across(decision, first)
            pairs["near_duplicate"] = _drop_later(decision, first, "near_duplicate")
            del first, usable, signatures
        _replay(decision, [entry.share for entry in recipe.replay])
        _limit(decision, workdir.plan.limits)
        account = Account()
        for number in range(1, len(decision.reasons)):
            found = np.flatnonzero(decision.reason == number)
            for one in found[:5]:
                account.drop(decision.reasons[number], decision.place(int(one)), decision.text(int(one)))
            if len(found):
                account.dropped[decision.reasons[number]] = len(found)
        decision.save(directory)
        facts |= {"account": account.as_json(), "pairs": pairs, "overlaps": overlaps, **_groups(decision)}


def _own_ids(decision: CorpusDecision, on_error: str) -> None:
    """Ids that the files give, each to one document. The same document twice is a duplicate, not a repeated id."""
    own = decision.all("own_id")
    numbers = np.flatnonzero(own)
    order = numbers[np.argsort(own[numbers], kind="stable")]
    leader = near.first_of_runs(own[order])
    same = np.flatnonzero(leader < np.arange(len(order)))
    repeated, original = order[same], order[leader[same]]
    digests = near.Stacked(decision.digests())
    differs = (digests.take(repeated) != digests.take(original)).any(axis=1)
    repeated, original = repeated[differs], original[differs]
    if len(repeated) and on_error != "skip":
        at = int(np.argmin(repeated))
        other = decision.place(int(original[at]))
        raise DataError(f"{decision.place(int(repeated[at]))}: its id is that of another document, {other}")
    decision.drop(repeated, "repeated_id")


def _drop_later(decision: CorpusDecision, first: Array, reason: str) -> list[tuple[str, str]]:
    """Drop documents that are not the first of their group; returns some (dropped, kept) places to look at."""
    later = np.flatnonzero((first != np.arange(len(first))) & decision.kept)
    decision.drop(later, reason)
    return [(decision.place(int(one)), decision.place(int(first[one]))) for one in later[:_PAIRS_SHOWN]]


def _across(decision: CorpusDecision, first: Array) -> dict[str, int]:
    """Documents that say the same as one of another split, by the two splits: ``train/test``."""
    split = decision.all("split")
    differ = np.flatnonzero((split != split[first]) & decision.kept)
    found: dict[str, int] = {}
    for one, other in zip(split[differ], split[first[differ]], strict=True):
        name = "/".join(SPLITS[at] for at in sorted((int(one), int(other))))
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def _replay(decision: CorpusDecision, shares: Sequence[float]) -> None:
    """Of every replay source as many documents, by the order of their digests, as make up its share of the characters.

    With shares s_i of the whole, the corpus is 1 - sum(s) of it: source i has s_i / (1 - sum(s)) times its characters.
    """
    if not shares:
        return
    group, chars = decision.all("group"), decision.all("chars")
    own = int(chars[(group == 0) & (decision.all("split") == 0) & decision.kept].sum())
    digests = decision.all("digest")[:, 0]
    for number, share in enumerate(shares, start=1):
        mine = np.flatnonzero((group == number) & decision.kept)
        order = mine[np.argsort(digests[mine], kind="stable")]
        wanted = own * share / (1 - sum(shares))
        needed = int(np.searchsorted(np.cumsum(chars[order]), wanted)) + 1 if wanted else 0
        if needed > len(order):
            has = int(chars[order].sum())
            raise DataError(
                f"prepare.replay[{number - 1}]: a share of {share:g} is {wanted:.0f} characters, "
                f"but its text has {has} after cleaning: give more, or a share of at most "
                f"{has / max(1, has + own):.3f}"
            )
        decision.drop(order[needed:], "not_replayed")


def _limit(decision: CorpusDecision, limits: dict[str, int]) -> None:
    """The first documents of each split by digest (a choice that no order of files changes), at most the limit."""
    if not limits:
        return
    split, digests = decision.all("split"), decision.all("digest")[:, 0]
    for name, limit in limits.items():
        mine = np.flatnonzero((split == SPLITS.index(name)) & decision.kept)
        order = mine[np.argsort(digests[mine], kind="stable")]
        decision.drop(order[limit:], "over_limit")


def _groups(decision: CorpusDecision) -> dict[str, Any]:
    """Documents and characters that each source group and split keeps."""
    group, split, chars = decision.all("group"), decision.all("split"), decision.all("chars")
    kept = decision.kept
    found = {
        str(number): {"documents": int(mine.sum()), "characters": int(chars[mine].sum())}
        for number in range(int(group.max(initial=0)) + 1)
        for mine in [(group == number) & kept]
    }
    rows = {name: int(((split == number) & kept).sum()) for number, name in enumerate(SPLITS)}
    return {"groups": found, "rows": rows}
