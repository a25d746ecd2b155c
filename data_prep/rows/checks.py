"""What is looked at in each row alone: pairs that say nothing, questions of test sets."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_prep.common import text
from data_prep.rows import pairs
from data_prep.rows.drafts import EVALUATION, NEAR, PAIR, SHARED, SWAPPED, Draft
from data_prep.rows.recipe import RowRecipe

Array = np.ndarray[Any, Any]


class RowChecks:
    """The checks of a recipe."""

    def __init__(self, recipe: RowRecipe) -> None:
        self._recipe = recipe
        self._never = text.word_pattern(recipe.chosen_never)
        self._shared, self._tests = _wordings(recipe.compare_with), _wordings(recipe.evaluation)

    def see(self, draft: Draft) -> None:
        """Set flags of a row, and drop it where it serves nothing or asks in any turn what a test set asks."""
        if self._recipe.kind == "preferences":
            self._see_pair(draft)
        if not draft.step and (len(self._shared) or len(self._tests)):
            asked = [text.digest(text.wording(one)) for one in {draft.texts.asked, *draft.texts.questions}]
            draft.flags |= SHARED * _any_of(asked, self._shared)
            if _any_of(asked, self._tests):
                draft.drop(EVALUATION, "in_evaluation", draft.texts.asked)

    def _see_pair(self, draft: Draft) -> None:
        """Pairs that say something, the right way round."""
        recipe, (chosen, rejected) = self._recipe, draft.texts.answers
        if pairs.same(chosen, rejected):
            draft.drop(PAIR, "no_difference", chosen)
            return
        alike = pairs.similarity(chosen, rejected, min(pairs.NEAR, recipe.near_identical or pairs.NEAR))
        draft.flags |= NEAR * (alike >= pairs.NEAR)
        if recipe.near_identical is not None and alike >= recipe.near_identical:
            draft.drop(PAIR, "near_identical", chosen)
        elif self._never is not None and self._never.search(chosen):
            wrong_way = not self._never.search(rejected)
            draft.flags |= SWAPPED * wrong_way
            if wrong_way and recipe.swapped == "swap":
                draft.texts = draft.texts._replace(answers=(rejected, chosen))
                draft.row |= {"chosen": draft.row["rejected"], "rejected": draft.row["chosen"]}
            elif recipe.swapped != "keep":
                draft.drop(PAIR, "swapped" if wrong_way else "chosen_never", chosen)


def _wordings(paths: tuple[str, ...]) -> Array:
    """Digests, sorted, of every text of these files in the form in which it is compared (they may be as large as the
    data themselves); very short ones ("Yes") say nothing."""
    from data_prep.corpus.shard import evaluation_texts

    found = (text.digest(one) for one in map(text.wording, evaluation_texts(paths)) if len(one) >= 8)
    return np.unique(np.fromiter(found, np.uint64))


def _any_of(wanted: Iterable[int], known: Array) -> bool:
    """Whether one is in the sorted ``known``."""
    places = ((one, bisect.bisect_left(known, one)) for one in wanted)
    return any(at < len(known) and int(known[at]) == one for one, at in places)
