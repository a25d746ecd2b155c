"""Rows to validate on are mapped from files, not held, in the back ends of NVIDIA (their environments: ``make venv-NAME``)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import environments, stages

COMMON = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/support"]  # an environment may have a package tests of its own
from pathlib import Path
import stages
from jobs.core.spec import Input
from jobs.core.validation import SPLIT
from jobs.training import tokenizers, tokens, validation
tokens.PART_BYTES = 500_000
root, model = Path(sys.argv[2]), Path(sys.argv[3])
given = Input("data", str(root), "dataset", "instructions", "0" * 64)
ctx, tokenizer = stages.quiet_context(root), tokenizers.load(model)
SETTINGS = {"steps": 1, "lr": 1e-5, "batch_size": 2, "micro_batch_size": 2, "sequence_length": 512}
def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024
before = own()
"""

SCRIPTS = {
    "automodel": """
from nemo_automodel.components.datasets.utils import default_collater
from jobs.backends.automodel import data, train
from jobs.backends.automodel.settings import AutomodelSettings
before = own()
rows = train._rows(given, SPLIT, AutomodelSettings.read(SETTINGS), tokenizer, root / "scratch", ctx)
rows = data.of_rows(rows, tokenizer, range(len(rows)))
def pass_over(taken):
    return default_collater([rows[index] for index in taken])["input_ids"].numel()
""",
    "nemo": """
from jobs.backends.nemo import held_out
from jobs.backends.nemo.settings import NemoSettings
held_out.parallel_state.get_tensor_model_parallel_world_size = lambda: 1
held_out.parallel_state.get_context_parallel_world_size = lambda: 1
before = own()
path = given.output / f"{SPLIT}.jsonl"
rows = held_out.rows_of("sft", given, path, NemoSettings.read(SETTINGS), tokenizer, root / "scratch", ctx)
def pass_over(taken):
    return held_out.batched([rows[index] for index in taken])["tokens"].numel()
""",
}

END = """
seen = sum(pass_over(taken) for taken, _ in validation.passes(len(rows), 0, 1, 16))
print("OWN", len(rows), seen, own() - before)
"""


@pytest.mark.nvidia
@pytest.mark.full
@pytest.mark.parametrize(("name", "needed"), [("automodel", "nemo_automodel"), ("nemo", "nemo")])
def test_memory_does_not_grow_with_the_rows(name: str, needed: str, tmp_path: Path) -> None:
    venv = environments.installed(name, needed)
    python = environments.on_cpu(venv, tmp_path / "venv") / "bin/python"
    stages.make_tokenizer(tmp_path / "model")
    own = []
    for count in (500, 10_000):
        rows = ({"prompt": f"Question {at}: ", "completion": f"yes {at} " * 20} for at in range(count))
        stages.write_rows(tmp_path / str(count) / "output" / "validation.jsonl", list(rows))
        command = [
            str(python),
            "-c",
            COMMON + SCRIPTS[name] + END,
            str(environments.ROOT),
            str(tmp_path / str(count)),
            str(tmp_path / "model"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert "OWN" in done.stdout, done.stderr[-3000:]
        made, seen, grown = map(int, done.stdout.split("OWN ")[1].split())
        assert made == count
        assert seen > 100 * count
        own.append(grown)
    assert own[1] - own[0] < 20, f"{json.dumps(own)} MB; the ids of 10,000 rows take 60 MB and more as Python integers"
