"""What checks of values let through, in the words of JSON Schema, for ``launch.config.schema``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], Any]

_ALLOWS: dict[Check, dict[str, Any]] = {}


def allows(check: Check, **keywords: Any) -> Check:
    """``check``; what it lets through is remembered. ``not_`` is the keyword ``not``."""
    _ALLOWS[check] = keywords
    return check


def allowed_by(check: Check) -> dict[str, Any]:
    """What was said by ``allows``; empty where nothing was."""
    return _ALLOWS.get(check, {})


def pattern_of(pattern: re.Pattern[str]) -> str:
    """The whole pattern as editors read it: regular expressions of JSON Schema are those of JavaScript."""
    return "^(?:" + re.sub(r"\?P<\w+>", "?:", pattern.pattern.removesuffix(r"\Z")) + ")$"
