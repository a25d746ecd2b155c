"""What can be wrong with preferences: pairs without a difference, the wrong way round, against each other, or won by
length alone."""

from __future__ import annotations

import difflib
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from data_prep.common import text

NEAR = 0.95
_COMPARED = 4000


def same(chosen: str, rejected: str) -> bool:
    """True where two answers do not differ: a sign, an operator, case, punctuation or an emoji is a difference."""
    return text.exact(chosen) == text.exact(rejected)


def similarity(chosen: str, rejected: str, least: float = 0.0) -> float:
    """Ratcliff/Obershelp similarity (0 to 1) of the first 4,000 characters, by words.

    Of pairs that cannot reach ``least`` an upper bound below it is returned: their words in common tell, at a cost that
    grows with the length of the texts and not with its square.
    """
    matcher = difflib.SequenceMatcher(None, chosen[:_COMPARED].split(), rejected[:_COMPARED].split(), autojunk=False)
    for bound in (matcher.real_quick_ratio(), matcher.quick_ratio()):
        if bound < least:
            return bound
    return matcher.ratio()


def contradictions(pairs: Sequence[tuple[str, str, str]]) -> set[int]:
    """Numbers of (prompt, chosen, rejected) of which another pair says the opposite: it prefers what they reject.

    The prompt is all that the model reads before the answer: under another system message, or after other turns, the
    opposite is no contradiction.
    """
    by_answers: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, (prompt, chosen, rejected) in enumerate(pairs):
        by_answers[text.exact(prompt), text.exact(chosen), text.exact(rejected)].append(number)
    found: set[int] = set()
    for (prompt, chosen, rejected), numbers in by_answers.items():
        if opposite := by_answers.get((prompt, rejected, chosen)):
            found.update(numbers, opposite)
    return found


def length_bias(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """How far length alone tells the chosen answer: ``pairs`` are the lengths of chosen and rejected, in characters.

    ``longer_wins`` is the share of pairs (of unequal length) in which the chosen answer is the longer one: 0.5 is no
    bias.
    A model trained on 0.7 and more learns to write at length (Singhal et al., "A Long Way to Go", 2023).
    """
    unequal = [(chosen, rejected) for chosen, rejected in pairs if chosen != rejected]
    share = sum(chosen > rejected for chosen, rejected in unequal) / len(unequal) if unequal else 0.5
    return {
        "longer_wins": round(share, 4),
        "median_chosen": statistics.median(chosen for chosen, _ in pairs) if pairs else 0,
        "median_rejected": statistics.median(rejected for _, rejected in pairs) if pairs else 0,
        "verdict": "no bias to speak of" if 0.3 < share < 0.7 else "length alone tells which answer was chosen",
    }
