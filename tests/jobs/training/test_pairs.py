"""Instructions and preferences as ids on disk: made by all processes together, mapped, and never held whole."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from jobs.encoding.settings import Encoding
from jobs.training import examples, pairs, tokenizers, tokens
from jobs.training.examples import ExamplesError
from tests.support import stages

MEMORY = """
import sys
from pathlib import Path
from jobs.training import pairs, tokenizers, tokens
from tests.support import stages
tokens.PART_BYTES = 500_000
source, kind, model, scratch = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
tokenizer = tokenizers.load(model)
rows, lengths = pairs.dataset(source, kind, "ab", tokenizer, pairs.Fit(4096), scratch, stages.quiet_context(source.parent))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
seen = sum(len(rows[at]["input_ids" if kind == "instructions" else "chosen_input_ids"]) for at in range(len(rows)))
assert len(rows) == len(lengths) and 0 < seen <= lengths.sum()
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(peak // 1024, own // 1024)  # pages of mapped files that were read are not of the process alone
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizer")
    stages.make_tokenizer(root)
    return root


def write(path: Path, kind: str, count: int, words: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Encoding().write(path.parent)
    with open(path, "w", encoding="utf-8") as stream:
        for at in range(count):
            texts = {
                "prompt": f"Question {at}: ",
                "chosen": f"yes {at} " * (at % 3 + words),
                "rejected": f"no {at} " * words,
            }
            if kind == "instructions":
                texts = {"prompt": texts["prompt"], "completion": texts["chosen"]}
            stream.write(json.dumps(texts) + "\n")
    return path


@pytest.mark.parametrize("kind", ["instructions", "preferences"])
@pytest.mark.parametrize("world", [1, 3])
def test_all_processes_make_the_rows_once(
    kind: str, world: int, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PART_BYTES", 700)
    source = write(tmp_path / "train.jsonl", kind, 40)
    tokenizer = tokenizers.load(model)
    found: list[Any] = [None] * world

    def start(rank: int) -> None:
        ctx = stages.quiet_context(tmp_path, rank, world)
        found[rank] = pairs.dataset(source, kind, "ab", tokenizer, pairs.Fit(4096), tmp_path / "scratch", ctx)

    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(list((tmp_path / "scratch").glob("part-*.json"))) > 3
    encoder = examples.encoder_of(tokenizer, source)
    wanted = [examples.encode(encoder, row) for row in examples.read_rows(source, kind)]
    for rows, lengths in found:
        assert len(rows) == 40
        assert lengths.tolist() == [max(map(len, one.values())) for one in wanted]
        for row, one in zip(rows, wanted, strict=True):
            for name, sequence in zip(pairs.NAMES[kind], one.values(), strict=True):
                assert row[f"{name}input_ids"] == list(sequence.ids)
                assert row[f"{name}labels"] == sequence.labels
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "scratch").iterdir()}
    start(0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "scratch").iterdir()} == before


def test_a_row_that_is_too_long_is_told_with_its_line_in_any_part(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PART_BYTES", 700)
    source = write(tmp_path / "train.jsonl", "instructions", 40)
    with open(source, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"prompt": "x", "completion": "long " * 500}) + "\n")
    tokenizer, ctx = tokenizers.load(model), stages.quiet_context(tmp_path)
    with pytest.raises(ExamplesError, match=r"train\.jsonl:41: \d+ tokens, more than sequence_length 200"):
        pairs.dataset(source, "instructions", "ab", tokenizer, pairs.Fit(200), tmp_path / "a", ctx)
    rows, _ = pairs.dataset(source, "instructions", "ab", tokenizer, pairs.Fit(200, "skip"), tmp_path / "b", ctx)
    assert len(rows) == 40
    with pytest.raises(ExamplesError, match=r"train\.jsonl:1: no row has at most sequence_length 2 tokens"):
        pairs.dataset(source, "instructions", "ab", tokenizer, pairs.Fit(2, "skip"), tmp_path / "c", ctx)


@pytest.mark.parametrize("kind", ["instructions", pytest.param("preferences", marks=pytest.mark.full)])
def test_memory_does_not_grow_with_the_rows(kind: str, tmp_path: Path, model: Path) -> None:
    peaks = []
    for count in (1_000, 20_000):
        source = write(tmp_path / str(count) / "train.jsonl", kind, count, 20)
        command = [sys.executable, "-c", MEMORY, str(source), kind, str(model), str(source.parent / "scratch")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append([int(one) for one in done.stdout.split()[-2:]])
    assert all(large - small < 25 for small, large in zip(*peaks, strict=True)), peaks
