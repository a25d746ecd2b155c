"""Which rows of a data set stay, and in which split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.card.account import SAMPLES, Account
from data_prep.card.request import PreparedRequest
from data_prep.common.errors import DataError, Flaw
from data_prep.rows import pairs, table
from data_prep.rows.drafts import EVALUATION, NEAR, OVER, PAIR, SHARED, SWAPPED, Texts
from data_prep.rows.recipe import RowRecipe
from data_prep.rows.shard import STATES
from data_prep.rows.table import Array, Table
from data_prep.sources import reader
from jobs.core.spec import Source


@dataclass(frozen=True)
class RowsRequest(PreparedRequest):
    """A data set of rows to be."""

    recipe: RowRecipe
    sources: Sequence[Source]


class Decision:
    """Which rows stay, and in which split: ``kept`` are their numbers in the order of their ids."""

    def __init__(self, request: RowsRequest, rows: Table) -> None:
        self.rows = rows
        self.account = Account()
        self.shared: Counter[str] = Counter()
        self.results: dict[str, Any] = {}
        self.given = rows.column("split")
        self._request = request
        self._alive = np.ones(len(rows), bool)
        self._flags = rows.column("flags")
        self._reasons = rows.named("reasons", "reason")
        for told in rows.told:
            self.account.add(Account.of_json(told["account"]))
        self._repeated_ids()
        self._duplicates()
        self._what_they_are()
        self._split()
        self._limited()
        self._check_splits()

    def of(self, split: str) -> Array:
        """Numbers of the rows of a split, in their order."""
        own: Array = self.kept[self.split[self.kept] == STATES.index(split)]
        return own

    def texts(self, split: str) -> Iterator[tuple[str, ...]]:
        """Prompt and answers of the rows of a split."""
        for number in self.of(split):
            found = Texts.of(json.loads(self.rows.line(number)))
            yield (found.asked, *found.answers)

    def _drop(self, reason: str, gone: Array) -> None:
        """Drop the rows for which ``gone`` is true."""
        numbers = np.flatnonzero(gone & self._alive)
        if not len(numbers):
            return
        self._alive[numbers] = False
        steps = self.rows.column("step")
        for number in numbers[:SAMPLES]:
            line = self.rows.line(number).decode()
            self.account.drop(reason, self.rows.place(number), line if steps[number] else _asked(line))
        self.account.dropped[reason] += max(0, len(numbers) - SAMPLES)

    def _repeated_ids(self) -> None:
        """An id is of one row; the same row twice is a duplicate."""
        for path, line, first in self.rows.repeated():
            made = self.rows.at(path, line)
            self._alive[made] = False
            self.account.read -= len(made)
            known = reader.rows(path, encoding=self._request.recipe.encoding)
            own = next(one[1]["id"] for one in known if not isinstance(one, Flaw) and one[0] == line)
            said = f"its id {str(own)[:60]!r} is that of another row, {first}"
            self.account.bad(Flaw("repeated_id", f"{path}:{line}", said), self._request.recipe.on_error)

    def _duplicates(self) -> None:
        """Exact repetitions leave; one prompt may well have several answers. Of a row in two splits that have files of
        their own the held-out one stays; ``shared`` counts these by their splits."""
        alive = np.flatnonzero(self._alive)
        first = np.arange(len(self.rows))
        first[alive] = alive[table.first_of_equal(self.rows.column("content")[alive])]
        repeated = first != np.arange(len(self.rows))
        other = self.given[first]
        self._drop("duplicate", repeated & (other == self.given))
        for one, name in enumerate(STATES):
            for two in np.unique(other[repeated & self._alive & (self.given == one)]):
                gone = repeated & self._alive & (self.given == one) & (other == two)
                self.shared[f"{name}/{STATES[two]}"] += int(gone.sum())
                self._drop(f"duplicate_of_{STATES[two]}", gone)

    def _what_they_are(self) -> None:
        """Drop rows for what they say, step by step, and count.

        Raises:
            DataError: too many rows that are too long.
        """
        recipe, results, step = self._request.recipe, self.results, self.rows.column("step")
        pairs_given = recipe.kind == "preferences"
        if pairs_given:
            swapped = self._flagged(SWAPPED)
            results[f"near-identical (from {pairs.NEAR})"] = self._flagged(NEAR)
            results["pairs the wrong way round (chosen_never)"] = swapped
            self.account.notes["swapped"] += swapped * (recipe.swapped == "swap")
            self._drop_at(PAIR, step)
            sides = [self.rows.column(name)[self._alive] for name in ("pair", "opposite")]
            against = self._alive.copy()
            against[self._alive] = pairs.contradict(*sides)
            self._drop("contradiction", against)
            own = [self.rows.column(name)[self._alive] for name in ("chosen", "rejected")]
            results.update({f"length: {name}": value for name, value in pairs.length_bias(*own).items()})
        if recipe.compare_with:
            results["prompts shared with compare_with"] = self._flagged(SHARED)
        self._drop_at(EVALUATION, step)
        if recipe.tokenizer is None:
            results["tokens, template and control tokens"] = "not looked at: prepare.tokenizer is not set"
            return
        measured, over = int(self._alive.sum()), self._flagged(OVER)
        for number in range(EVALUATION + 1, int(step.max(initial=0)) + 1):
            self._drop_at(number, step)
        notes: Counter[str] = Counter()
        control: Counter[str] = Counter()
        for told in self.rows.told:
            notes.update(told["notes"])
            control.update(dict(told["control"]))
        results.update({name: count for name, count in notes.items() if count})
        if count := control.pop("", 0):
            named = ", ".join(f"{name}: {times}" for name, times in control.most_common(5))
            results[f"rows with control tokens in texts ({recipe.special_tokens})"] = f"{count} ({named})"
        if day := self.rows.told[0]["day"]:
            results["today in the chat template (template_date)"] = day
        if recipe.max_tokens is not None:
            results[f"rows over {recipe.max_tokens} tokens"] = over
            if over > recipe.max_over_length * measured:
                raise DataError(
                    f"{over} of {measured} rows ({over / measured:.1%}) have more than {recipe.max_tokens} tokens "
                    f"(max_tokens); max_over_length allows {recipe.max_over_length:.1%}: raise one of them, or shorten "
                    "the rows"
                )

    def _flagged(self, bit: int) -> int:
        return int(((self._flags & bit) != 0)[self._alive].sum())

    def _drop_at(self, number: int, step: Array) -> None:
        names, reason = self._reasons
        for at, name in enumerate(names):
            self._drop(name, (step == number) & (reason == at))

    def _split(self) -> None:
        """Rows of files with a split stay there, but for the part of those for training that a missing split takes."""
        self.split = self.given.copy()
        free = np.flatnonzero(self._alive & (self.given <= STATES.index("train")))
        stratified = self._request.recipe.stratify_by is not None
        self.split[free] = table.splits(self.rows, free, self._request.split, stratified)

    def _limited(self) -> None:
        """The first rows of each split by id (a choice that no order of files changes), at most its limit."""
        alive = np.flatnonzero(self._alive)
        self.kept = alive[np.argsort(self.rows.column("id")[alive], kind="stable")]
        gone = np.zeros(len(self.rows), bool)
        for split, most in self._request.limits.items():
            gone[self.of(split)[most:]] = True
        self._drop("over_limit", gone)
        self.kept = self.kept[self._alive[self.kept]]

    def _check_splits(self) -> None:
        request = self._request
        for name, part in request.split.parts().items():
            if (part > 0 or name in request.layout.said) and not len(self.of(name)):
                raise DataError(
                    f"nothing is left for the {name} split ({len(self.kept)} rows in all, split.{name} is {part:g}): "
                    f"give more data, or set split.{name if name != 'train' else 'test'} "
                    + ("to 0 if it is not needed" if name != "train" else "lower")
                    + self.account.why()
                )


def _asked(line: str) -> str:
    return Texts.of(json.loads(line)).asked
