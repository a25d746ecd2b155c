"""Reports of progress: lines as we write them are read by a short way, and no other line by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.core import progress, strict
from jobs.core.progress import ProgressWriter, Report

USUAL = {"time": 1.5, "step": 3, "total": 9, "restart": 1, "metrics": {"loss": 2.5, "lr": 1e-05}}


def closely(line: str) -> Report | None:
    """What the long way makes of it."""
    try:
        return strict.build(Report, {"phase": "", "metrics": {}, "total": None, **strict.parse(line)})
    except (TypeError, ValueError):
        return None


def test_what_we_write_is_read_by_the_short_way(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    writer = ProgressWriter(path, restart=2)
    writer.report(1, 10, loss=2.5, tokens_per_second=1234.5, broken=float("nan"))
    writer.report(2, None, "tokenising")
    lines = path.read_text().splitlines()
    found = [progress._usual(line) for line in lines]
    assert found == list(progress.read(path)) == list(map(closely, lines))
    assert [(one.step, one.phase, one.restart) for one in found if one] == [(1, "", 2), (2, "tokenising", 2)]


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(USUAL)[:-5],
        json.dumps({**USUAL, "metrics": {"loss": float("nan")}}),
        json.dumps({**USUAL, "metrics": {"loss": float("inf"), "lr": -float("inf")}}),
        json.dumps({**USUAL, "time": float("inf")}),
        json.dumps({**USUAL, "metrics": {"loss": 4}}),
        json.dumps({**USUAL, "metrics": {"loss": "4"}}),
        json.dumps({**USUAL, "metrics": {"loss": 1e308, "lr": 1e308}}),
        json.dumps({**USUAL, "metrics": {'a "quoted" name': 1.0}}),
        json.dumps({**USUAL, "metrics": [1.0]}),
        json.dumps({**USUAL, "step": True}),
        json.dumps({**USUAL, "step": 1.0}),
        json.dumps({**USUAL, "more": 1}),
        json.dumps({**USUAL, "phase": 1}),
        json.dumps({name: value for name, value in USUAL.items() if name != "restart"}),
        json.dumps({name: value for name, value in USUAL.items() if name != "step"}),
        json.dumps(USUAL).replace('"step"', '"step": 1, "step"'),
        json.dumps(USUAL).replace('"loss"', '"lr": 1.0, "loss"'),
        "[]", "1", "null", "", "[" * 100_000,
    ],
)  # fmt: skip
def test_every_other_line_is_what_the_long_way_makes_of_it(line: str) -> None:
    assert Report.parse(line) == closely(line)
