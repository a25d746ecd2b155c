"""Plain tables and plain words for times and sizes: what ``plan``, ``status``, ``list`` and the results print.

Not rich: importing it takes longer than making the table, and the output is as often read by ``grep`` as by people.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell; columns of ``right`` are flush right.

    A column without any content is left out, so that a caller need not know beforehand what there is to say. On a
    terminal that is too narrow cells are broken into lines, at words where that is enough.
    """
    used = [index for index in range(len(header)) if any(row[index] for row in rows)]
    if not used:
        return []
    widths = {index: max(len(header[index]), *(len(row[index]) for row in rows)) for index in used}

    gap = GAP
    if (room := columns()) is not None and sum(widths.values()) + len(gap) * (len(used) - 1) > room:
        cells = {index: [header[index], *(row[index] for row in rows)] for index in used}
        least = {index: max(len(word) for cell in cells[index] for word in [*cell.split(), ""]) for index in used}
        gap = gap if sum(least.values()) + len(gap) * (len(used) - 1) <= room else " "
        widths = _narrowed(widths, least, room - len(gap) * (len(used) - 1))

    def line(cells: Sequence[str]) -> Iterator[str]:
        parts = {index: _broken(cells[index], widths[index]) for index in used}
        for at in range(max(map(len, parts.values()))):
            texts = {index: part[at] if at < len(part) else "" for index, part in parts.items()}
            padded = (
                texts[index].rjust(widths[index]) if index in right else texts[index].ljust(widths[index])
                for index in used
            )
            yield gap.join(padded).rstrip()

    # The last column is not padded, and may hold sentences: its rule is as long as its header.
    rule = {index: "-" * width for index, width in widths.items()}
    rule[used[-1]] = "-" * min(widths[used[-1]], len(header[used[-1]]))
    under = gap.join(rule[index] for index in used).rstrip()
    return [*line(header), under, *(part for row in rows for part in line(row))]


def columns() -> int | None:
    """How wide the terminal is that standard output goes to; None: it goes elsewhere, where lines are not broken."""
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns or None


def _narrowed(widths: dict[int, int], least: dict[int, int], room: int) -> dict[int, int]:
    """Widths that fit into ``room``: the widest give way first, only then below their longest word."""
    found = dict(widths)
    for floor in (least, dict.fromkeys(least, 4)):
        while sum(found.values()) > room and (wider := [index for index in found if found[index] > floor[index]]):
            found[max(wider, key=lambda index: found[index])] -= 1
    return found


def _broken(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    import textwrap  # only on a narrow terminal

    return textwrap.wrap(cell, width) or [""]


def duration(seconds: float) -> str:
    """``0:42``, ``1:05:00`` or ``2-03:00:00``, as Slurm writes them but without leading zeros."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{left:02}"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def clock(epoch: float, now: float | None = None) -> str:
    """``14:03:11`` for a time of today, with the date for any other day."""
    today = time.localtime(now)
    then = time.localtime(epoch)
    same_day = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M", then)


def utc(epoch: float) -> str:
    """``2026-11-30T01:12:16Z``, for programs."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def user_place(kind: str, default: str) -> Path:
    """The user's directory for files of a kind: ``$XDG_<kind>_HOME``, else ``default`` of the home directory."""
    base = os.environ.get(f"XDG_{kind}_HOME")
    return (Path(base) if base else Path.home() / default) / "overnight"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def nearest(name: str, options: Sequence[str], synonyms: dict[str, str] | None = None) -> str | None:
    """The option that ``name`` was probably meant to be; ``synonyms`` are other words for some of them."""
    import difflib  # only when something is wrong

    words = {option.lower().replace("-", "_"): option for option in options}
    for word, option in (synonyms or {}).items():
        if option in options:
            words.setdefault(word, option)
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(words), n=1, cutoff=0.6)
    return words[found[0]] if found else None


def suggest(name: str, options: Sequence[str], synonyms: dict[str, str] | None = None) -> str:
    """``nearest: lr``, or the whole list where nothing is near."""
    close = nearest(name, options, synonyms)
    if close is not None:
        return f"nearest: {close}"
    return f"there are: {', '.join(options)}" if options else "there are none"


_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories: control characters (C0, DEL, C1), halves of surrogate pairs (of names that are not UTF-8), line
and paragraph separators."""


def control_character(text: str, allowed: str = "") -> str | None:
    """The first such character as ``U+XXXX``; None where there is none but those ``allowed``."""
    if text.translate({ord(letter): None for letter in allowed}).isprintable():  # which none of those refused is
        return None
    found = (letter for letter in text if letter not in allowed and unicodedata.category(letter) in _REFUSED)
    first = next(found, None)
    return None if first is None else f"U+{ord(first):04X}"


def gib(value: float) -> str:
    """Bytes in GiB, ``1.25 GiB``."""
    return f"{value / 2**30:.2f} GiB"
