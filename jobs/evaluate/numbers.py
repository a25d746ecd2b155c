"""Numbers in a text, as they are written in English, Korean, Spanish and Portuguese."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_SIGN = r"(?:(?<![\w)])[-\u2212])?"
_POWER = r"(?:[eE][-+]?\d{1,3}(?!\d))?"
_POINT = rf"\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?{_POWER}|\.\d+{_POWER}"
# "3.14" in such a text is what it is in English: no three digits stand behind the point of 1.234.
_COMMA = rf"\d{{1,3}}(?:\.\d{{3}})+(?!\d)(?:,\d+)?|\d{{1,3}}(?: \d{{3}})+(?!\d)(?:,\d+)?|\d+(?:[.,]\d+)?{_POWER}"
_FORMS = {"en": _POINT, "ko": _POINT, "es": _COMMA, "pt": _COMMA}

_SMALL = {"천": 1000, "백": 100, "십": 10}
_LARGE = {"조": 10**12, "억": 10**8, "만": 10**4}
_UNIT = re.compile("[조억만천백십]")
_PART = re.compile(rf"({_POINT})|([조억만천백십])")


def numbers(text: str, language: str) -> list[Decimal]:
    """All numbers of a text, in their order. Of a Korean one with their units: 3만 5천 is 35,000."""
    plain = unicodedata.normalize("NFKC", text)
    form = _FORMS[language]
    if language == "ko":
        form = rf"(?:{_POINT})\s?(?:[조억만천백십]\s?(?:{_POINT})?\s?)*[조억만천백십](?:\s?(?:{_POINT}))?|{form}"
    return [_value(found.group(), language) for found in re.finditer(rf"{_SIGN}(?:{form})", plain)]


def _value(text: str, language: str) -> Decimal:
    plain = text.lstrip("-\u2212")
    if language == "ko" and _UNIT.search(plain):
        found = _with_units(plain)
    elif language in ("en", "ko"):
        found = Decimal(plain.replace(",", ""))
    else:
        if re.fullmatch(r"\d{1,3}(\.\d{3})+(,\d+)?", plain):
            plain = plain.replace(".", "")
        found = Decimal(plain.replace(" ", "").replace(",", "."))
    return found.copy_negate() if text[0] in "-\u2212" else found  # which rounds nothing


def _with_units(text: str) -> Decimal:
    total = section = Decimal(0)
    number: Decimal | None = None
    for digits, unit in _PART.findall(text):
        if digits:
            number = Decimal(digits.replace(",", ""))
        elif unit in _SMALL:
            section += (1 if number is None else number) * _SMALL[unit]
            number = None
        else:
            section += number or 0
            total += (section or 1) * _LARGE[unit]
            section, number = Decimal(0), None
    return total + section + (number or 0)
