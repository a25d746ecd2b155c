"""The order of training: each epoch is a permutation, and no batch holds a row twice. Standard library only."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.core.epochs import steps_of
from jobs.training.examples import ExamplesError
from jobs.training.order import left_over, training_order

counts = st.integers(1, 40)
slowly = settings(deadline=None, max_examples=80)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, list[int] | None]:
    """(examples, batch, steps, lengths or None)."""
    count = draw(counts)
    batch = draw(st.integers(1, count))
    lengths = draw(st.none() | st.lists(st.integers(1, 50), min_size=count, max_size=count))
    return count, batch, draw(st.integers(1, 40)), lengths


@slowly
@given(shapes(), st.integers(0, 2**31))
def test_an_epoch_is_a_permutation_and_a_batch_holds_no_row_twice(
    shape: tuple[int, int, int, list[int] | None], seed: int
) -> None:
    count, batch, steps, lengths = shape
    order = training_order(count, batch, steps, seed, lengths)[:]
    assert len(order) == steps * batch
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))
    rest = order[len(order) // count * count :]
    assert len(rest) == len(set(rest)) == left_over(count, batch, steps)
    for start in range(0, len(order), batch):
        assert len(set(order[start : start + batch])) == batch


@slowly
@given(shapes(), st.integers(0, 9))
def test_the_order_does_not_depend_on_how_it_is_read(shape: tuple[int, int, int, list[int] | None], seed: int) -> None:
    count, batch, steps, lengths = shape
    order = training_order(count, batch, steps, seed, lengths)
    last = training_order(count, batch, steps, seed, lengths)[len(order) - 1]  # as after a resume
    assert list(order) == [order[index] for index in range(len(order))]
    assert last == order[-1]
    assert training_order(count, batch, steps + 3, seed, lengths)[: len(order)] == order[:]


@slowly
@given(shapes(), st.integers(0, 9))
def test_grouping_by_length_reorders_within_an_epoch_only(
    shape: tuple[int, int, int, list[int] | None], seed: int
) -> None:
    count, batch, steps, lengths = shape
    plain = training_order(count, batch, steps, seed)[:]
    grouped = training_order(count, batch, steps, seed, lengths)[:]
    whole = len(plain) // count * count
    assert [Counter(plain[at : at + count]) for at in range(0, whole, count)] == [
        Counter(grouped[at : at + count]) for at in range(0, whole, count)
    ]


def test_seeds_and_epochs_differ() -> None:
    assert training_order(50, 5, 10, 1)[:] != training_order(50, 5, 10, 2)[:]
    two = training_order(50, 5, 20, 1)
    assert two[:50] != two[50:]


def test_every_row_comes_at_every_place_about_as_often() -> None:
    places = Counter((row, at) for seed in range(1000) for at, row in enumerate(training_order(10, 2, 5, seed)))
    assert len(places) == 100
    assert all(50 < often < 150 for often in places.values())  # 100 expected, five standard deviations


def test_grouping_saves_padding() -> None:
    lengths = [(index * 37) % 90 for index in range(64)]

    def padding(order: list[int]) -> int:
        batches = [[lengths[index] for index in order[at : at + 4]] for at in range(0, 64, 4)]
        return sum(4 * max(batch) - sum(batch) for batch in batches)

    assert padding(training_order(64, 4, 16, 1, lengths)[:]) < padding(training_order(64, 4, 16, 1)[:]) / 3


def test_fewer_rows_than_a_batch_are_refused() -> None:
    with pytest.raises(ExamplesError, match=r"rows\.jsonl: 3 examples to train on, batch_size is 4, .* at most 3"):
        training_order(3, 4, 1, 0, where="rows.jsonl")


@slowly
@given(counts, st.integers(1, 40), st.integers(1, 5))
def test_steps_of_epochs_take_every_row_that_often(count: int, batch: int, epochs: int) -> None:
    steps = steps_of(count, batch, epochs)
    assert (steps - 1) * batch < epochs * count <= steps * batch
    assert steps_of(10, 4, 0.5) == 2
    assert steps_of(10, 3, 0.1) == 1
