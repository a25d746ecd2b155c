"""What the benchmark of several processes makes of its measurements."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluate_processes
from benchmarks.evaluate_processes import ROWS, TASKS, Side

ROOT = Path(__file__).parents[3]
ONE = Side(loading=4.0, measuring=10.0, whole=15.0, busiest=9.0, cpu=14.0, samples=[])


def shown(capsys: pytest.CaptureFixture[str], two: Side) -> dict[str, str]:
    evaluate_processes.show([{1: ONE, 2: two}])
    lines = capsys.readouterr().out.splitlines()
    return {line.split(",")[0].strip(): line for line in lines if "2 processes over 2 x 1" in line}


def test_twice_as_fast_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, replace(ONE, measuring=5.0, busiest=5.0, whole=10.0))
    for name, ratio in (("throughput", "1.000"), ("throughput by CPU", "0.900")):
        assert f" {ratio} (" in found[name]
        assert found[name].endswith("ok")
    assert " 0.750 (" in found["throughput of the whole stage"]
    assert "MISSED" in shown(capsys, replace(ONE, measuring=5.6))["throughput"]


def test_two_that_say_something_else_are_found() -> None:
    lines: list[dict[str, Any]] = [{"id": str(n), "nll": 1.0, "answer": "x"} for n in range(ROWS * len(TASKS))]
    evaluate_processes._same([lines, [{**lines[0], "nll": 1.00001}, *lines[1:]]])
    for wrong in ({"nll": 1.01}, {"answer": "y"}, {"id": "1000"}, {"more": 1}):
        with pytest.raises(AssertionError):
            evaluate_processes._same([lines, [{**lines[0], **wrong}, *lines[1:]]])
    with pytest.raises(AssertionError):
        evaluate_processes._same([lines, lines[:-1]])


@pytest.mark.full
@pytest.mark.train
def test_the_benchmark_itself() -> None:
    pytest.importorskip("transformers")
    environment = {**os.environ, "BENCHMARK_PAIRS": "1", "BENCHMARK_ROWS": "32"}
    command = [sys.executable, "-m", "benchmarks.evaluate_processes"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "throughput by CPU, 2 processes over 2 x 1" in done.stdout
