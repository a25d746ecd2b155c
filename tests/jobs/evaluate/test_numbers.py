"""Numbers as they are written in four languages."""

from __future__ import annotations

from decimal import Decimal

import pytest

from jobs.evaluate.numbers import numbers


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "It is 1,234.50 dollars, not -3 or 10-15.", ["1234.50", "-3", "10", "15"]),
        ("en", "1,2345 and 1,2,3", ["1", "2345", "1", "2", "3"]),
        ("en", "1.2e-3, .5 and \u22127", ["0.0012", "0.5", "-7"]),
        ("en", "no number", []),
        ("es", "son 1.234,5 euros, 3,14 o 3.14", ["1234.5", "3.14", "3.14"]),
        ("es", "1\u00a0234\u00a0567 personas", ["1234567"]),
        ("pt", "R$ 1.234.567,89 e -0,5", ["1234567.89", "-0.5"]),
        ("ko", "총 1,234.5원", ["1234.5"]),
        ("ko", "3만 5천원", ["35000"]),
        ("ko", "1억 2천만 원과 1만 2,000원", ["120000000", "12000"]),
        ("ko", "１２３개, -5만", ["123", "-50000"]),
        ("en", "9" * 40, ["9" * 40]),
    ],
)
def test_numbers(language: str, text: str, found: list[str]) -> None:
    assert numbers(text, language) == [Decimal(one) for one in found]
