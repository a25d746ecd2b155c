"""The one check for characters that could start a new line of a script, or hide in one."""

from __future__ import annotations

import unicodedata

_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories: control characters (C0, DEL, C1), halves of surrogate pairs (of names that are not UTF-8), line
and paragraph separators."""


def control_character(text: str, allowed: str = "") -> str | None:
    """The first such character as ``U+XXXX``; None where there is none but those ``allowed``."""
    if text.isascii() and text.isprintable():
        return None
    found = (letter for letter in text if letter not in allowed and unicodedata.category(letter) in _REFUSED)
    first = next(found, None)
    return None if first is None else f"U+{ord(first):04X}"
