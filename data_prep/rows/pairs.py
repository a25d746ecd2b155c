"""What can be wrong with preferences: pairs without a difference, the wrong way round, against each other, or won by
length alone."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from data_prep.common import text

Array = np.ndarray[Any, Any]
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


def sides(prompt: str, chosen: str, rejected: str) -> tuple[int, int]:
    """Digests of a preference and of its contrary.

    The prompt is all that the model reads before the answer: under another system message, or after other turns, the
    opposite is no contradiction.
    """
    said = [text.exact(one) for one in (prompt, chosen, rejected)]
    return text.digest(*said), text.digest(said[0], said[2], said[1])


def contradict(pair: Array, opposite: Array) -> Array:
    """Which preferences are the contrary of another one; of each both of its ``sides`` are given."""
    return np.isin(pair, opposite)


def length_bias(chosen: Array, rejected: Array) -> dict[str, Any]:
    """How far length alone tells the chosen answer; of both answers of each pair the characters are given.

    ``longer_wins`` is the share of pairs (of unequal length) in which the chosen answer is the longer one: 0.5 is no
    bias.
    A model trained on 0.7 and more learns to write at length (Singhal et al., "A Long Way to Go", 2023).
    """
    longer, unequal = int((chosen > rejected).sum()), int((chosen != rejected).sum())
    share = longer / unequal if unequal else 0.5
    return {
        "longer_wins": round(share, 4),
        "median_chosen": float(np.median(chosen)) if len(chosen) else 0,
        "median_rejected": float(np.median(rejected)) if len(rejected) else 0,
        "verdict": "no bias to speak of" if 0.3 < share < 0.7 else "length alone predicts which answer was chosen",
    }
