"""Documents of a corpus to ids: the one way for trainers, evaluation and ``inspect``.

The data stage has a faster tokenizer; it shares the rules that stand here, and tests compare its ids with these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jobs.encoding.control import Control, ControlNames
from jobs.encoding.texts import end_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DocumentEncoder:
    """Documents by one tokenizer, with what it puts before every text by itself (mostly nothing, else a beginning
    token), and one end token behind. ``special_tokens``: what a control token in a text is, see ``Encoding``.

    Raises:
        CannotEncode: the tokenizer has no end token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special_tokens: str = "escape") -> None:
        self.control = Control(tokenizer)
        self.end = end_id(tokenizer)
        whole, alone = (list(tokenizer("a", add_special_tokens=added)["input_ids"]) for added in (True, False))
        self.begin = beginning(whole, alone)
        self._tokenizer = tokenizer
        self._mode = special_tokens

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each document; the tokenizer spreads them over its threads."""
        return [[*self.begin, *body(ids, self.begin, self.end), self.end] for ids in self._ids(list(texts))]

    def flaw(self, text: str) -> str | None:
        """Why a text cannot be tokenised as the data set says; None: it can."""
        return flaw(text, self.control, self._mode, lambda one: self._ids([one])[0])

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            split_special_tokens=self._mode != "allow",
        )["input_ids"]
        return found


def beginning(whole: list[int], alone: list[int]) -> list[int]:
    """The ids that a tokenizer puts before every text by itself; ``whole`` is a text with them, ``alone`` without."""
    return next((whole[:at] for at in range(len(whole)) if whole[at : at + len(alone)] == alone), [])


def body(ids: Any, begin: Sequence[int], end: int) -> Any:
    """The ids of a text (a list or an array) without the beginning and the end token that it has itself."""
    start = len(begin) if list(ids[: len(begin)]) == list(begin) else 0
    return ids[start : -1 if len(ids) > start and ids[-1] == end else None]


def flaw(text: str, names: ControlNames, mode: str, encode: Callable[[str], Iterable[int]]) -> str | None:
    """Why a text cannot be tokenised by the mode ``special_tokens``; None: it can. ``encode`` is asked only where
    control tokens stand in the text that have to become text."""
    found = names.count(text) if mode != "allow" else None
    if not found:
        return None
    if mode == "refuse":
        return f"holds control tokens: {listed(found)} (special_tokens: escape makes text of them)"
    ids = set(encode(text))
    for name in found:
        if names.ids[name] in ids:
            return (
                f"holds the control token {name}, which this tokenizer cannot distinguish from text: special_tokens: "
                "refuse with on_error: skip leaves such documents out"
            )
    return None


def listed(found: Counter[str]) -> str:
    """The most frequent control tokens with how often they stand in texts."""
    return ", ".join(f"{name}: {count}" for name, count in found.most_common(5))
