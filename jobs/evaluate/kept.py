"""What is measured already: the lines of samples.jsonl that every process keeps while it works.

They lie in the store entry, so that the next start, or another submission, goes on at the row where this one ended. A
file is that of one process of one start, which alone appends to it. A line that a kill has cut is passed over, and so
is one of a row that is shown to the model as other tokens now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Sample = dict[str, Any]
Samples = dict[str, list[Sample]]
"""Task -> samples."""

SampleKey = tuple[int | None, str, str, str]
"""Save, task and id of a row, and the digest of what was shown to the model."""


SAMPLES = "samples.jsonl"
"""In a finished evaluation: a line an example."""


def write_samples(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """The file of all samples."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def read_samples(path: Path) -> Samples:
    """Samples of an evaluation by task; of a curve those of its last point."""
    points = read_points(path)
    return points[max(points, key=lambda step: -1 if step is None else step)] if points else {}


def read_points(path: Path) -> dict[int | None, Samples]:
    """Samples of an evaluation by step and task; the step is None where it is no curve."""
    found: dict[int | None, Samples] = {}
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            sample = json.loads(line)
            found.setdefault(sample.get("step"), {}).setdefault(sample["task"], []).append(sample)
    return found


class KeptLines:
    """Lines that several processes keep in a directory, each in a file of its own; ``name``: of that of this process,
    which no other start has. ``fields`` are those that every line has, as texts."""

    def __init__(self, directory: Path, name: str, fields: Sequence[str]) -> None:
        self._directory, self._own, self._fields = directory, directory / name, fields
        self._begun = False

    def lines(self) -> Iterator[dict[str, Any]]:
        """All whole lines, of all processes."""
        for path in sorted(self._directory.glob("*.jsonl")):
            with open(path, "rb") as stream:
                for line in stream:
                    found = _parsed(line)
                    if found is not None and all(isinstance(found.get(name), str) for name in self._fields):
                        yield found

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep these: they are in the file when it returns, and a kill loses no more than what came after."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if not self._begun:
            self._directory.mkdir(parents=True, exist_ok=True)
            text = "\n" * self._is_cut() + text  # a line behind one that was cut would be lost with it
            self._begun = True
        with open(self._own, "a", encoding="utf-8") as stream:
            stream.write(text)

    def _is_cut(self) -> bool:
        try:
            with open(self._own, "rb") as stream:
                stream.seek(-1, os.SEEK_END)
                return stream.read() != b"\n"
        except OSError:  # it is not there, or empty
            return False


class Kept(KeptLines):
    """The samples that are kept in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name, ("task", "id", "prompt"))

    def read(self) -> dict[SampleKey, Sample]:
        """All samples by save, task, id and what was shown; of two of a row the last one read."""
        return {key_of(sample): sample for sample in self.lines()}


def key_of(sample: Sample) -> SampleKey:
    """Save, task, id and what was shown."""
    return sample.get("step"), sample["task"], sample["id"], sample["prompt"]


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
