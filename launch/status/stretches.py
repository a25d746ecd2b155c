"""A progress file as stretches of rising steps: a page asks for a million reports, and an object for each is too many.

A line as ``ProgressWriter`` writes it is matched, not parsed, and of its metrics only the text is kept. A block of the
file that has any other line (cut, damaged, of another writer) is read by ``Report.parse``, with the same outcome.
"""

from __future__ import annotations

import io
import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, count, pairwise
from operator import ge, gt, ne
from pathlib import Path
from typing import Any

from jobs.core import strict
from jobs.core.progress import Report

_BLOCK_BYTES = 64 * 1024
_BLOCK_LINES = 500
"""Small ones: what is made of a block is gone before it leaves the processor's cache."""

_WHOLE = rb"(?:0|[1-9]\d{0,14}+)"  # 15 digits: as a float it is the same number
_NUMBER = rb"-?" + _WHOLE + rb"(?:\.\d++)?+(?:e[-+]\d\d)?+"
_TEXT = rb'"[ !#-\[\]-~]*+"'
_METRIC = _TEXT + rb": " + _NUMBER
_LINE = re.compile(
    rb'^\{"metrics": \{((?:' + _METRIC + rb"(?:, " + _METRIC + rb")*+)?+)\}, "
    rb'((?:"phase": ' + _TEXT + rb', )?+"restart": ' + _WHOLE + rb'), "step": (' + _WHOLE + rb"), "
    rb'"time": (' + _NUMBER + rb'), "total": (?:null|' + _WHOLE + rb")\}\n",
    re.MULTILINE,
)
_Row = tuple[bytes, bytes, bytes, bytes]
"""The groups of ``_LINE``: metrics, phase and restart (both as JSON without braces), step, time."""


@dataclass
class Stretch:
    """Reports of one start in one phase, never none: ``steps`` rise, ``times`` do not fall. ``texts``: their metrics
    as JSON without braces."""

    restart: int
    phase: str
    steps: array[int]
    times: array[float]
    texts: list[bytes]

    def part(self, first: int, end: int) -> Stretch:
        """The reports with these numbers."""
        cut = slice(first, end)
        return Stretch(self.restart, self.phase, self.steps[cut], self.times[cut], self.texts[cut])

    def between(self, start: float, end: float | None) -> Stretch | None:
        """The reports from ``start`` on and before ``end`` (None: all later ones); None: there is none."""
        first = bisect_left(self.times, start)
        last = len(self.times) if end is None else bisect_left(self.times, end)
        return self.part(first, last) if first < last else None

    def takes(self, later: Stretch) -> bool:
        """Whether ``later`` goes on with this one; it is then a part of it."""
        goes_on = (
            (self.restart, self.phase) == (later.restart, later.phase)
            and self.steps[-1] < later.steps[0]
            and self.times[-1] <= later.times[0]
        )
        if goes_on:
            self.steps += later.steps
            self.times += later.times
            self.texts += later.texts
        return goes_on


def read(path: Path) -> list[Stretch]:
    """All that ``jobs.core.progress.read`` gives, in order of writing; empty where there is no file yet."""
    found: list[Stretch] = []
    for block in _blocks(path):
        rows = _LINE.findall(block)
        if len(rows) != block.count(b"\n") or not block.endswith(b"\n"):
            rows = list(_closely(block))
        for one in _split(rows) if rows else ():
            if not (found and found[-1].takes(one)):
                found.append(one)
    return found


def _blocks(path: Path) -> Iterator[bytes]:
    """Some lines at a time."""
    stream = strict.open_if_there(path)
    if stream is None:
        return
    with stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block + stream.readline()


def _closely(block: bytes) -> Iterator[_Row]:
    lines = io.TextIOWrapper(io.BytesIO(block), encoding="utf-8", errors="replace")
    for one in filter(None, map(Report.parse, lines)):
        start = _as_text({"phase": one.phase, "restart": one.restart})
        yield _as_text(one.metrics), start, str(one.step).encode(), repr(one.time).encode()


def _as_text(value: dict[str, Any]) -> bytes:
    return json.dumps(value)[1:-1].encode()


def _split(rows: list[_Row]) -> Iterator[Stretch]:
    texts, starts, *numbers = zip(*rows, strict=True)
    steps, times = list(map(int, numbers[0])), list(map(float, numbers[1]))
    columns: tuple[Any, ...] = ((ne, starts), (ge, steps), (gt, times))
    cuts = {at for ends, column in columns for at in compress(count(1), map(ends, column, column[1:]))}
    for first, end in pairwise([0, *sorted(cuts), len(rows)]):
        start = {"phase": "", **json.loads(b"{" + starts[first] + b"}")}
        steps_, times_ = array("q", steps[first:end]), array("d", times[first:end])
        yield Stretch(**start, steps=steps_, times=times_, texts=list(texts[first:end]))


def joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """As ``launch.status.curves.joined`` of the reports: steps rise from one stretch to the next, too."""
    found: list[Stretch] = []
    for one in stretches:
        while found and found[-1].steps[-1] >= one.steps[0]:
            left = found.pop()
            if kept := bisect_left(left.steps, one.steps[0]):
                found.append(left.part(0, kept))
        found.append(one)
    return found


def columns(stretches: Iterable[Stretch], *names: str) -> Iterator[tuple[list[int], list[float]]]:
    """Of each metric the steps that have it, and its values."""
    found: dict[str, tuple[list[int], list[float]]] = {name: ([], []) for name in names}
    for one in stretches:
        for at in range(0, len(one.steps), _BLOCK_LINES):
            steps, texts = one.steps[at : at + _BLOCK_LINES], one.texts[at : at + _BLOCK_LINES]
            metrics = json.loads(b"[{" + b"},{".join(texts) + b"}]", parse_int=float)
            for name, (having, values) in found.items():
                own = [known[name] for known in metrics if name in known]
                values += own
                is_in_all = len(own) == len(steps)
                having += steps if is_in_all else [s for s, known in zip(steps, metrics, strict=True) if name in known]
    return iter(found.values())
