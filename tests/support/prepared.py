"""What the tests of prepared data share: a small byte-level tokenizer, invented texts, builds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("tokenizers")
pytest.importorskip("tiktoken")

import numpy as np

from data_prep import prepared
from data_prep.common.settings import Settings
from data_prep.corpus.shard import work
from data_prep.corpus.workers import ProcessRunner, Runner
from data_prep.rows import pairs

WORDS = [
    a + b for a in ("ba", "ke", "lo", "mi", "nu", "pra", "so", "te") for b in ("den", "l", "rim", "sk", "ton", "va")
]


def sentence(dice: random.Random, words: int) -> str:
    return " ".join(dice.choice(WORDS) for _ in range(words)).capitalize() + "."


def document(seed: int, words: int = 80) -> str:
    return sentence(random.Random(seed), words)


def write_tokenizer(directory: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator([document(seed, 200) for seed in range(30)], trainer)
    directory.mkdir(exist_ok=True)
    own.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return directory


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make(
    kind: str,
    inputs: list[Path],
    output: Path,
    *,
    workers: int | None = None,
    runner: Runner | None = None,
    split: Any = None,
    **prepare: Any,
) -> dict[str, int]:
    """Build a data set as the command does; ``workers``: on so many processes, else in this one; ``runner``: what does
    the shards of a corpus."""
    settings = Settings.parse(
        kind, {"source": {"type": "path"}, "split": split or {"validation": 0.1, "test": 0.1}, "prepare": prepare}
    )
    output.mkdir(parents=True)
    return prepared.build(
        settings,
        prepared.sources_of(inputs),
        output,
        output.with_name(output.name + ".work"),
        report=lambda phase: lambda step, total: None,
        runner=runner or (ProcessRunner(workers) if workers else in_this_process),
    )


def in_this_process(root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
    """A runner that starts no processes."""
    for shard in shards:
        work(root, phase, shard)
        progress(shard)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def contradictions(given: list[tuple[str, str, str]]) -> set[int]:
    """Numbers of (prompt, chosen, rejected) that another one contradicts."""
    sides = np.array([pairs.sides(*one) for one in given], "u8").T
    return set(np.flatnonzero(pairs.contradict(*sides)).tolist())
