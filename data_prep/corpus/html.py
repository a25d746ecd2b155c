"""The text of an HTML page: what a reader sees, one block a paragraph. A scanner, not a tree: pages may be of any size
and as broken as they are on the web."""

from __future__ import annotations

import html
import re

# Possessive quantifiers and atomic groups: no page can make this scanner go back over what it has read.
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style|noscript|template|svg|math|head)\b[^>]*+>.*?(?:</\1\s*+>|\Z)"
    r"|</?+([a-zA-Z][\w:-]*+)(?>\"[^\"]*+\"|'[^']*+'|[^'\">])*+>"
    r"|<[!?][^>]*+>",
    re.DOTALL | re.IGNORECASE,
)
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary",
    "table", "tbody", "tfoot", "thead", "tr", "ul",
))  # fmt: skip
_CELLS = frozenset(("td", "th"))
_PRE = re.compile(r"(<pre\b[^>]*+>)(.*?)(</pre\s*+>|\Z)", re.DOTALL | re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^>]*+>(.*?)</title\s*+>", re.DOTALL | re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f]+")
_SPACES = re.compile(" {2,}")
_AROUND_BREAK = re.compile(r" *\n *")
_KEPT = "\ue000"  # stands for a line end of a <pre>, which the collapsing of white space must leave alone
_INDENT = "\ue001"


def charset(head: bytes) -> str:
    """The encoding that a page declares in its first two kilobytes; empty: it declares none."""
    found = _CHARSET.search(head[:2048])
    return found[1].decode("ascii") if found else ""


def to_text(page: str) -> str:
    """The visible text of ``page``, its title first."""
    title = _TITLE.search(page)
    body = _PRE.sub(_keep_lines, page)
    body = _TAG.sub(_replacement, _SPACE.sub(" ", body))
    text = _AROUND_BREAK.sub("\n", _SPACES.sub(" ", html.unescape(body))).replace(_KEPT, "\n").replace(_INDENT, " ")
    heading = _SPACE.sub(" ", html.unescape(title[1])).strip() if title else ""
    text = text.strip()
    return f"{heading}\n\n{text}" if heading and not text.startswith(heading) else text


def _keep_lines(found: re.Match[str]) -> str:
    inside = found[2].expandtabs().replace("\r\n", "\n")
    return found[1] + inside.replace("\n", _KEPT).replace(" ", _INDENT) + found[3]


def _replacement(found: re.Match[str]) -> str:
    name = (found[2] or "").lower()
    if name in _BLOCKS:
        return "\n"
    return " " if name in _CELLS else ""
