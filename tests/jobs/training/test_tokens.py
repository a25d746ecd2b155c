"""A corpus as ids: blocks. No torch needed."""

from __future__ import annotations

import pytest

from jobs.training.examples import ExamplesError
from jobs.training.tokens import pack


def test_blocks_have_one_length_and_the_rest_is_dropped() -> None:
    assert pack([[1, 2, 3], [4], [5, 6, 7, 8]], 3) == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ExamplesError, match="2 tokens, less than one block of 3"):
        pack([[1, 2]], 3)
