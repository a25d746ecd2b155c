"""The order of training. Standard library only."""

from __future__ import annotations

from collections import Counter

from jobs.training.order import training_order


def test_order_is_fixed_and_every_pass_takes_all() -> None:
    order = training_order(10, batch=4, steps=5, seed=1)
    assert order == training_order(10, batch=4, steps=5, seed=1)
    assert order != training_order(10, batch=4, steps=5, seed=2)
    assert Counter(order) == Counter(dict.fromkeys(range(10), 2))
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_more_steps_begin_with_the_same_examples() -> None:
    assert training_order(50, 4, 8, 3)[:16] == training_order(50, 4, 4, 3)


def test_grouping_by_length_moves_examples_but_loses_none() -> None:
    lengths = [(index * 37) % 90 for index in range(64)]
    plain = training_order(64, 4, 16, 1)
    grouped = training_order(64, 4, 16, 1, lengths)
    assert Counter(grouped) == Counter(plain)

    def padding(order: list[int]) -> int:
        batches = [[lengths[index] for index in order[at : at + 4]] for at in range(0, 64, 4)]
        return sum(4 * max(batch) - sum(batch) for batch in batches)

    assert padding(grouped) < padding(plain) / 3
