"""Where the rows of a benchmark lie: as on the hub, in folders, in one file with a column, or as a package has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

from jobs.evaluate.benchmarks import Benchmark
from jobs.training.examples import ExamplesError

ROWS = [{"question": f"q{n}", "subject": ("anatomy", "world history")[n % 2], "answer": n} for n in range(6)]
CARD = """\
---
configs:
- config_name: anatomy
  data_files: [{split: test, path: a/*.jsonl}]
- config_name: world_history
  data_files: [{split: test, path: b/*.jsonl}]
---
# rows
"""


def put(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(found: Any, split: str = "test") -> list[int]:
    return list(found[split]["answer"])


def test_a_card_says_where_parts_are(tmp_path: Path) -> None:
    put(tmp_path / "rows" / "a" / "x.jsonl", ROWS[:2])
    put(tmp_path / "rows" / "b" / "y.jsonl", ROWS[2:])
    (tmp_path / "rows" / "README.md").write_text(CARD, encoding="utf-8")
    benchmark = Benchmark(tmp_path / "rows", "org/rows", tmp_path / "scratch")
    assert answers(benchmark.part("anatomy")) == [0, 1]
    assert answers(benchmark.part("world_history")) == [2, 3, 4, 5]
    with pytest.raises(ExamplesError, match="cannot be read as a data set"):
        benchmark.part("law")


def test_folders_and_tables(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    put(tmp_path / "rows" / "anatomy" / "test.jsonl", ROWS[:2])
    put(tmp_path / "rows" / "anatomy" / "dev.jsonl", ROWS[2:3])
    (tmp_path / "rows" / "law").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS[3:]), tmp_path / "rows" / "law" / "test-00000-of-00001.parquet")
    benchmark = Benchmark(tmp_path / "rows", "org/rows", tmp_path / "scratch")
    assert (answers(benchmark.part("anatomy")), answers(benchmark.part("anatomy"), "dev")) == ([0, 1], [2])
    assert answers(benchmark.part("law")) == [3, 4, 5]


def test_a_column_says_the_part(tmp_path: Path) -> None:
    benchmark = Benchmark(put(tmp_path / "all.jsonl", ROWS), "org/rows", tmp_path / "scratch")
    assert answers(benchmark.part("world_history")) == [1, 3, 5]
    assert benchmark.part("law") == {}
    without = [{"question": row["question"]} for row in ROWS]
    assert Benchmark(put(tmp_path / "one.jsonl", without), "org/rows", tmp_path / "scratch").part("law") is None


def test_rows_of_a_package_become_those_of_the_hub(tmp_path: Path) -> None:
    rows = [
        {"question": "One?", "options": "A. a\nB. b\nC. c\nD. d", "answer": "B. b"},
        {"question": "Two?", "options": "A. a\nB. a\nC. c\nD. d", "answer": "a"},
    ]
    benchmark = Benchmark(put(tmp_path / "mmlu.jsonl", rows), "cais/mmlu", tmp_path / "scratch")
    found = benchmark.part(None)
    assert found is not None
    assert list(found["test"]) == [{"question": "One?", "choices": ["a", "b", "c", "d"], "answer": 1}]
    assert benchmark.unclear == 1


def test_what_is_no_row_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[1]\n', encoding="utf-8")
    with pytest.raises(ExamplesError, match=r"rows\.jsonl:2: a row must be an object, not list"):
        Benchmark(path, "org/rows", tmp_path / "scratch").part(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExamplesError, match="no file of rows"):
        Benchmark(tmp_path / "empty", "org/rows", tmp_path / "scratch").part(None)
