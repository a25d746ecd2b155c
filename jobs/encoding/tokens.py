"""The ids of a sequence, and which of them carry loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.encoding.errors import CannotEncode
from jobs.encoding.frames import CharacterSpan

IGNORED = -100
"""Label of a token without loss."""
Cut = tuple[list[int], Any]
"""Ids of a text, and what the tokenizer knows of their characters."""


@dataclass(frozen=True)
class Tokens:
    """One sequence as the model sees it: ids, and for each whether it carries loss."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[int]:
        """The ids with loss; ``IGNORED`` for the others."""
        return [one if learned else IGNORED for one, learned in zip(self.ids, self.mask, strict=True)]

    @property
    def start(self) -> int:
        """How many ids stand before the first with loss."""
        return self.mask.index(True) if True in self.mask else len(self.mask)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the first with loss."""
        return self.ids[: self.start]

    @property
    def completion(self) -> tuple[int, ...]:
        """The ids from the first with loss on."""
        return self.ids[self.start :]

    @classmethod
    def of(cls, prompt: Sequence[int], completion: Sequence[int]) -> Tokens:
        """A prompt without loss and what follows it, with loss."""
        return cls((*prompt, *completion), (False,) * len(prompt) + (True,) * len(completion))


def ids_of(cut: Cut | CannotEncode) -> list[int]:
    """The ids. Raises CannotEncode: there are none."""
    if isinstance(cut, CannotEncode):
        raise cut
    return cut[0]


def with_loss(spans: Iterable[CharacterSpan], cut: Cut | CannotEncode) -> Tokens:
    """The ids of a text, those with loss that hold a character of ``spans``.

    Raises:
        CannotEncode: there are no ids, or none of them carries loss.
    """
    if isinstance(cut, CannotEncode):
        raise cut
    ids, known = cut
    mask: list[bool] = []
    for start, end in spans:
        first, behind = _first(known, start, len(mask), 1), _first(known, end, len(mask), 0)
        mask += [False] * (first - len(mask))
        mask += [True] * (behind - len(mask))
    if True not in mask:
        raise CannotEncode("nothing_to_learn", "no token of it carries loss")
    return Tokens(tuple(ids), (*mask, *[False] * (len(ids) - len(mask))))


def _first(known: Any, place: int, least: int, side: int) -> int:
    """The first id from ``least`` on that begins (``side`` 0) at ``place`` or later, or ends (1) behind it."""

    def before(at: int) -> bool:
        edge = int(known.token_to_chars(at)[side])
        return edge < place or (edge == place and side == 1)

    if not len(known) or before(len(known) - 1):
        return len(known)
    # The offsets of all ids as a list cost as much as the ids. White space that no id holds is looked for one by one.
    at = max(known.char_to_token(place) or 0, least)
    while before(at):
        at += 1
    return at
