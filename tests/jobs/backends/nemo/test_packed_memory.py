"""Packing holds no ids of all rows in memory. Needs NeMo's environment (``make venv-nemo``)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import environments

SCRIPT = """
import json, sys, tracemalloc
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from jobs.backends.nemo import data
from jobs.backends.nemo.settings import NemoSettings
from jobs.encoding.tokens import Tokens

settings = NemoSettings.read({"steps": 1, "lr": 1e-5, "batch_size": 2, "sequence_length": 1024, "packed": True})
scratch, peaks = Path(sys.argv[2]), []
for count in (500, 10_000):
    rows = (Tokens.of(range(1000, 1200), range(number, number + 100)) for number in range(count))
    tracemalloc.start()
    ids = sum(len(one["input_ids"]) for one in data._sequences(rows, scratch / "train.jsonl", scratch, settings))
    assert ids == 300 * count
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
print("PEAKS", json.dumps(peaks))
"""


@pytest.mark.nvidia
@pytest.mark.full
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    venv = environments.installed("nemo", "nemo")
    python = environments.on_cpu(venv, tmp_path / "venv") / "bin/python"
    command = [str(python), "-c", SCRIPT, str(environments.ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "PEAKS" in done.stdout, done.stderr[-3000:]
    small, large = json.loads(done.stdout.split("PEAKS ")[1].splitlines()[0])
    assert large - small < 3e6, "the ids of 10,000 rows take 100 MB as Python integers"
