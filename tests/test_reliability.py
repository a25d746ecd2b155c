"""The page of failures and tests is the one that the tests give, and no failure is without a test."""

from __future__ import annotations

import pytest

from tests import reliability


def test_every_failure_has_a_test() -> None:
    assert reliability.numbers() == set(range(1, 44))
    assert sorted(reliability.numbers() - set(reliability.covered())) == []


def test_the_page_is_that_of_the_tests() -> None:
    assert reliability.PAGE.read_text(encoding="utf-8") == reliability.page(), "python -m tests.reliability"


def test_the_source_says_what_pytest_sees(request: pytest.FixtureRequest) -> None:
    """Markers are read from the source: none that pytest collected is missed."""
    covered = {(one.path, one.name, number) for number, tests in reliability.covered().items() for one in tests}
    root = reliability.TESTS.parent
    for item in request.session.items:
        for mark in item.iter_markers("failure"):
            for number in mark.args:
                name = getattr(item, "originalname", item.name)
                assert (item.path.relative_to(root).as_posix(), name, number) in covered


def test_an_unknown_number_is_an_error() -> None:
    assert reliability.unknown([(1, 43)]) == []
    assert reliability.unknown([(44,), (0, 2), ()]) == [44, 0, None]
