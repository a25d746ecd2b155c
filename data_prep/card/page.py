"""The data card: ``card.json`` for programs, ``card.html`` for eyes. One file without scripts, fonts or links
outward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jobs.core import files

JSON, HTML = "card.json", "card.html"

_COUNTS = (
    ("languages", "Languages (of a sample)"), ("scripts", "Scripts"), ("forms", "Forms"), ("notes", "Done to rows"),
)  # fmt: skip
# In the picture itself, so that it is the same in a viewer that knows no style sheets for it, and on paper.
_FILLS = {"": "#3b76b8", "drop": "#c2603f", "kept": "#3f8f5f"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid
#d5dde5;padding-bottom:.2rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr+tr td{border-top:1px solid #edf1f5}
.sub{color:#5b6b7b;margin:.2rem 0 1rem}
pre{white-space:pre-wrap;word-break:break-word;background:#f5f7fa;padding:.6rem;border-radius:4px;margin:.3rem 0;
max-height:16rem;overflow:auto;font-size:13px}code{font-size:13px}svg text{font:12px system-ui,sans-serif;fill:#33414f}
@media(prefers-color-scheme:dark){body{background:#12171d;color:#dfe6ee}pre{background:#1b232c}
h2,tr+tr td{border-color:#2a343f}.sub{color:#93a3b3}svg text{fill:#c4cfda}}
"""


def write_card(output: Path, facts: Mapping[str, Any]) -> None:
    """Write both forms of the card into ``output``."""
    files.write_json(output / JSON, facts)
    files.write_atomic(output / HTML, render(facts))


def render(facts: Mapping[str, Any]) -> str:
    """The page. Keys that a kind of data does not have are left out."""
    unit = facts.get("unit", "row")
    flow = [("kept", int(facts["kept"])), *sorted(facts["dropped"].items(), key=lambda entry: -entry[1])]
    pairs = [(reason, one, other) for reason, found in facts.get("pairs", {}).items() for one, other in found]
    parts = [
        f"<h1>{escape(str(facts['kind']).capitalize())}</h1>",
        f"<p class=sub>{_number(facts['kept'])} of {_number(facts['read'])} {escape(unit)}s kept;"
        " read = kept + dropped</p>",
        _section("Where the rows went", _bars(flow, "drop", {"kept": "kept"})),
        _section("Splits", _splits(facts)),
        _section("Where the splits come from", _table(("", ""), facts.get("splits_from", {}).items())),
        _section("Overlaps between splits", _overlaps(facts)),
    ]
    for what, title in (("characters", "Characters of a document"), ("tokens", "Tokens of a row")):
        if facts.get(what):
            parts.append(_section(title, _histograms(facts[what])))
    for what, title in _COUNTS:
        if facts.get(what):
            parts.append(_section(title, _bars(list(facts[what].items())[:12], "")))
    if facts.get("checks"):
        parts.append(_section("Checks", _table(("check", "result"), facts["checks"].items())))
    parts.append(_dropped(facts))
    parts.append(_section("Duplicates", _table(("", "dropped", "kept"), pairs)))
    parts.append(_examples(facts))
    if facts.get("tokenizer"):
        parts.append(_section("Tokenizer", _table(("", ""), facts["tokenizer"].items())))
    parts.append(_section("Sources", _sources(facts)))
    body = "\n".join(part for part in parts if part)
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(str(facts['kind']))} - data card</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _table(head: Sequence[str], content: Iterable[Sequence[Any]]) -> str:
    rows = list(content)
    lines = ["<tr>" + "".join(_cell(value, first=at == 0) for at, value in enumerate(row)) + "</tr>" for row in rows]
    if not lines:
        return ""
    numbers = [at > 0 and all(_is_number(row[at]) for row in rows) for at in range(len(head))]
    heads = (f"<th{' class=n' * right}>{escape(name)}</th>" for name, right in zip(head, numbers, strict=True))
    top = f"<tr>{''.join(heads)}</tr>" if any(head) else ""
    return f"<table>{top}{''.join(lines)}</table>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, first: bool) -> str:
    if _is_number(value) and not first:
        return f"<td class=n>{_number(value)}</td>"
    return f"<td>{escape(str(value))}</td>"


def _bars(rows: Sequence[tuple[str, int]], kind: str, kinds: Mapping[str, str] | None = None) -> str:
    """Horizontal bars with their numbers."""
    most = max((count for _, count in rows), default=0) or 1
    total = sum(count for _, count in rows) or 1
    drawn = []
    for at, (name, count) in enumerate(rows):
        y = 22 * at
        style = (kinds or {}).get(name, kind)
        width = max(1, round(430 * count / most))
        drawn.append(
            f"<text x='170' y='{y + 15}' text-anchor='end'>{escape(str(name))}</text>"
            f"<rect fill='{_FILLS[style]}' x='180' y='{y + 4}' width='{width}' height='14' rx='2'/>"
            f"<text x='{190 + width}' y='{y + 15}'>{_number(count)} ({100 * count / total:.1f} %)</text>"
        )
    size = f"viewBox='0 0 760 {22 * len(rows)}' width='100%'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img'>{''.join(drawn)}</svg>" if rows else ""


def _splits(facts: Mapping[str, Any]) -> str:
    rows = []
    for name, count in facts["rows"].items():
        row: list[Any] = [name, count]
        for what in ("characters", "tokens"):
            if facts.get(what):
                row.append(facts[what].get(name, {}).get("total", 0))
        rows.append(row)
    return _table(("split", "rows", *(what for what in ("characters", "tokens") if facts.get(what))), rows)


def _overlaps(facts: Mapping[str, Any]) -> str:
    """How many rows of one split say what one of another says; exact ones of files with splits are dropped."""
    found = facts.get("overlaps", {})
    rows: list[tuple[Any, ...]] = [
        (kind, "not looked at" if counts is None else "none", "") for kind, counts in found.items() if not counts
    ]
    rows += [(kind, pair, count) for kind, counts in found.items() for pair, count in (counts or {}).items()]
    return _table(("", "of / in", "rows"), sorted(rows, key=lambda row: list(found).index(row[0])))


def _histograms(lengths: Mapping[str, Mapping[str, Any]]) -> str:
    """Lengths of all splits together, in powers of two."""
    bins: dict[int, int] = {}
    for entry in lengths.values():
        for key, count in entry.get("bins", {}).items():
            bins[int(key)] = bins.get(int(key), 0) + int(count)
    rows = [(f"{1 << (key - 1):,} - {(1 << key) - 1:,}" if key else "0", bins[key]) for key in sorted(bins)]
    return _bars(rows, "")


def _dropped(facts: Mapping[str, Any]) -> str:
    parts = []
    for reason, samples in facts.get("samples", {}).items():
        shown = "".join(
            f"<div><code>{escape(place)}</code>{f'<pre>{escape(text)}</pre>' * bool(text)}</div>"
            for place, text in samples
        )
        count = _number(facts["dropped"].get(reason, 0))
        parts.append(f"<details><summary>{escape(reason)}: {count}</summary>{shown}</details>")
    return _section("Dropped, with the first few of each", "".join(parts))


def _examples(facts: Mapping[str, Any]) -> str:
    parts = []
    for split, found in facts.get("examples", {}).items():
        for example in found:
            fields = "".join(
                f"<pre><b>{escape(name)}</b>\n{escape(str(text))}</pre>"
                for name, text in example.items()
                if name != "id"
            )
            parts.append(f"<div><code>{escape(split)} {escape(str(example.get('id', '')))}</code>{fields}</div>")
    return _section("Examples", "".join(parts))


def _sources(facts: Mapping[str, Any]) -> str:
    rows = [(entry.get("role", "source"), entry["path"], entry["sha256"][:16]) for entry in facts.get("sources", ())]
    more = facts.get("more_sources", 0)
    if not rows:
        return ""
    table = _table(("", "file", "sha256"), rows)
    return f"<details><summary>{len(rows) + more} files</summary>{table}</details>"
