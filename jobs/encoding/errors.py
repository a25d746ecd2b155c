"""Why a row cannot become ids."""

from __future__ import annotations


class CannotEncode(ValueError):
    """``reason`` is a short name, for counting; ``str()`` says what is wrong and what to write instead."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
