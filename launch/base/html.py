"""What the parts of the page are made of: escaped text, tables, sections."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape

LONGEST = 1200
"""Characters of a text that a page shows."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters but newline and tab, and those that only turn or join others."""


def digest(text: str) -> str:
    """The source of a content policy that allows this text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def shown(text: str, most: int = LONGEST) -> str:
    """Text of others as HTML: cut, escaped, and with what a reader cannot see made visible."""
    cut = text if len(text) <= most else text[:most] + f"\u2026 ({len(text):,} characters)"
    return escape(_UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", cut))


def section(title: str, content: str) -> str:
    """Empty without content."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Cells are HTML already."""
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (f"<{tag}{' class=n' * (at in right)}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    return f"<div class=wide><table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table></div>"
