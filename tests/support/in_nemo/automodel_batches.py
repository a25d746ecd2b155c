"""Prints the rows that AutoModel's loader deals to two processes, step by step, of rows and of a corpus.

Arguments: a Hugging Face directory, a file of instructions, a directory for the corpus.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from nemo_automodel.components.datasets.loader import DataloaderConfig  # noqa: E402
from nemo_automodel.components.datasets.utils import default_collater  # noqa: E402

from data_prep.tokens.indexed import IndexedWriter  # noqa: E402
from jobs.backends.automodel import data  # noqa: E402
from jobs.training import pairs, tokenizers  # noqa: E402
from jobs.training.tokens import Blocks  # noqa: E402

BATCH, MICRO, STEPS, WORLD = 10, 5, 7, 2


def rows_of(config: Any) -> list[str]:
    loaders = [
        iter(
            DataloaderConfig(
                config, batch_size=MICRO, shuffle=False, drop_last=True, collate_fn=default_collater
            ).build(dp_rank=rank, dp_world_size=WORLD)
        )
        for rank in range(WORLD)
    ]
    found: list[str] = []
    for _ in range(STEPS):
        for _ in range(BATCH // MICRO // WORLD):
            for loader in loaders:
                batch = next(loader)
                found += [
                    json.dumps(row[mask.bool()].tolist())
                    for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
                ]
    return found


model, rows, scratch = sys.argv[1:4]
prefix = Path(scratch) / "corpus"
writer = IndexedWriter(prefix, np.dtype("<u2"))
for number in range(23):
    writer.add(np.full(8, number))
writer.close()
of = (Path(rows), "instructions", "ab" * 32, tokenizers.load(Path(model)), pairs.Fit(64), Path(scratch) / "rows")
kept, _ = pairs.dataset(*of, SimpleNamespace(rank=0, world=1))
blocks_of = Blocks(prefix, 8, 3, extra=1)
config = data.PairsConfig(rows, str(Path(scratch) / "rows"), model, BATCH, STEPS, 3)
blocks = data.BlocksConfig(str(prefix), 8, BATCH, STEPS, 3)
each_pair = [json.dumps(row["input_ids"][:-1]) for row in kept]
each_block = [json.dumps(block.tolist()[:-1]) for block in blocks_of]
found = {
    "pairs": {"rows": rows_of(config), "each": each_pair, "count": len(each_pair)},
    "blocks": {"rows": rows_of(blocks), "each": each_block, "count": len(each_block)},
}
print(json.dumps(found))
