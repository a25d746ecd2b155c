"""Ids of a sequence and their loss."""

from __future__ import annotations

import pytest

from jobs.encoding.errors import CannotEncode
from jobs.encoding.tokens import IGNORED, Tokens, ids_of, with_loss


def test_tokens_are_divided_at_the_first_with_loss() -> None:
    tokens = Tokens.of((1, 2), (3,))
    assert (tokens.ids, tokens.labels, tokens.prompt, tokens.completion) == ((1, 2, 3), [-100, -100, 3], (1, 2), (3,))


class Offsets:
    """What a tokenizer knows of the characters of its ids: one for each character, but white space."""

    def __init__(self, text: str) -> None:
        self.places = [at for at, letter in enumerate(text) if letter != " "]

    def __len__(self) -> int:
        return len(self.places)

    def token_to_chars(self, at: int) -> tuple[int, int]:
        return self.places[at], self.places[at] + 1

    def char_to_token(self, place: int) -> int | None:
        return self.places.index(place) if place in self.places else None


@pytest.mark.parametrize(
    ("spans", "labels"),
    [
        ([(0, 2)], [0, 1, IGNORED, IGNORED]),
        ([(2, 4)], [IGNORED, IGNORED, 2, IGNORED]),  # begins with white space of no id
        ([(0, 1), (4, 5)], [0, IGNORED, IGNORED, 3]),
    ],
)
def test_loss_is_on_ids_that_hold_a_character_of_the_spans(spans: list[tuple[int, int]], labels: list[int]) -> None:
    text = "ab cd"
    found = with_loss(spans, ([0, 1, 2, 3], Offsets(text)))
    assert found.ids == (0, 1, 2, 3)
    assert found.labels == labels


def test_a_sequence_without_loss_teaches_nothing() -> None:
    with pytest.raises(CannotEncode, match="no token of it carries loss"):
        with_loss([(2, 3)], ([0, 1, 2, 3], Offsets("ab cd")))
    with pytest.raises(CannotEncode, match="why"):
        ids_of(CannotEncode("reason", "why"))
