"""What the parts of the page are made of: escaped text, tables, sections."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

LONGEST = 1200
"""Characters of a text that a page shows."""

_UNSEEN = {0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069, 0x200B, 0x200E, 0x200F, 0xFEFF}


def digest(text: str) -> str:
    """The source of a content policy that allows this text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def shown(text: str, most: int = LONGEST) -> str:
    """Text of others as HTML: cut, escaped, and with what a reader cannot see made visible."""
    cut = text if len(text) <= most else text[:most] + f"\u2026 ({len(text):,} characters)"
    seen = (f"[U+{ord(one):04X}]" if ord(one) in _UNSEEN or _control(one) else one for one in cut)
    return escape("".join(seen))


def _control(one: str) -> bool:
    return (ord(one) < 0x20 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0


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
