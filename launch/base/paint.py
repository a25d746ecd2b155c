"""Colours where a person looks, and none in a pipe: lines of text are painted as they are printed.

What makes lines knows nothing of it. ``NO_COLOR`` (https://no-color.org) turns colours off, ``FORCE_COLOR`` on.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"

_GOOD = r"sealed|done|passed|ok|reused|fetched|already here"
_BAD = r"failed|missed|lost|refused|damaged|cancelled|cut off|fail|TOO FEW|blocked"
_OPEN = r"running|waits|waiting|undecided|submitted|adopted|submitting|warn|note"
_STATE = rf"(?<![\w-])(?:(?P<bad>{_BAD})|(?P<good>{_GOOD})|(?P<open>{_OPEN}))(?![\w-])"
_COLOUR = {"bad": RED, "good": GREEN, "open": YELLOW}
_RULE = r"-+(?: +-+)*\Z"
_HEAD = r"(next|note|overnight|page|also in)(: )"


def wanted(stream: TextIO) -> bool:
    """Whether what is printed there is painted."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def out(lines: Iterable[str]) -> None:
    """Print lines on standard output."""
    for line in painted(lines) if wanted(sys.stdout) else lines:
        print(line)


def text(line: str, colour: str, stream: TextIO) -> str:
    """A piece of a line for ``stream``."""
    return f"\x1b[{colour}m{line}\x1b[0m" if wanted(stream) else line


def painted(lines: Iterable[str]) -> Iterator[str]:
    """The lines with colours: heads and rules of tables, the states in their rows, and what to type next."""
    held: str | None = None
    in_table = False
    for line in [part for one in lines for part in one.split("\n")]:
        if held is not None:
            is_rule = bool(re.match(_RULE, line)) and bool(held.strip())
            yield f"\x1b[{BOLD}m{held}\x1b[0m" if is_rule else _row(held) if in_table else _plain(held)
            in_table = (in_table or is_rule) and bool(line.strip())
        held = line
    if held is not None:
        yield _row(held) if in_table else _plain(held)


def _row(line: str) -> str:
    if re.match(_RULE, line):
        return f"\x1b[{DIM}m{line}\x1b[0m"
    # The last one in the line: names of stages come before states.
    found = list(re.finditer(_STATE, line))
    if not found:
        return line
    bad = next((one for one in found if one.lastgroup == "bad"), found[-1])
    return f"{line[: bad.start()]}\x1b[{_COLOUR[str(bad.lastgroup)]}m{bad[0]}\x1b[0m{line[bad.end() :]}"


def _plain(line: str) -> str:
    head = re.match(_HEAD, line)
    if head is None:
        return line
    return f"\x1b[{BOLD}m{head[1]}\x1b[0m{head[2]}{line[head.end() :]}"
