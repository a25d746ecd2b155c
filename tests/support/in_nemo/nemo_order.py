"""The rows that NeMo's samplers deal to two replicas: ``python nemo_order.py DATA CHECKPOINT DIRECTORY``.

Prints one JSON line: for rows and for a corpus, the samples of every step and those of the whole set.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BATCH, MICRO, STEPS, SEED = 10, 5, 7, 3


def main() -> None:
    """Deal both."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import numpy
    from megatron.core.datasets import gpt_dataset
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from nemo.lightning.data import MegatronPretrainingSampler

    from data_prep.tokens.indexed import IndexedWriter
    from jobs.backends.nemo import data, model
    from jobs.backends.nemo.settings import NemoSettings
    from jobs.core.spec import Input
    from jobs.training.tokens import Blocks

    scratch = Path(sys.argv[3])
    prefix = scratch / "corpus"
    scratch.mkdir(parents=True)
    writer = IndexedWriter(prefix, numpy.dtype("<u2"))
    for number in range(23):
        writer.add(numpy.full(8, number))
    writer.close()
    config = gpt_dataset.GPTDatasetConfig(
        random_seed=SEED,
        sequence_length=8,
        blend=([str(prefix)], None),
        split="1,0,0",
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache=str(scratch / "index"),
        tokenizer=SimpleNamespace(eod=2, pad=2, unique_identifiers={}),
    )
    data.NemoBlocks.batch = BATCH
    (blocks, *_) = BlendedMegatronDatasetBuilder(data.NemoBlocks, [BATCH * STEPS, 0, 0], lambda: True, config).build()
    share = {"consumed_samples": 0, "micro_batch_size": MICRO, "data_parallel_size": 2, "global_batch_size": BATCH}
    deal = [MegatronPretrainingSampler(len(blocks), data_parallel_rank=rank, **share) for rank in (0, 1)]
    found: dict[str, Any] = {
        "blocks": {
            "steps": dealt(deal, lambda index: blocks[index]["tokens"].tolist()),
            "each": [block.tolist()[:-1] for block in Blocks(prefix, 8, SEED, extra=1)],
        }
    }

    given = Input("data", sys.argv[1], "dataset", "instructions", "ab" * 32)
    settings = NemoSettings.read({"steps": STEPS, "lr": 1.0, "batch_size": BATCH, "sequence_length": 64})
    tokenizer = model.tokenizer(Path(sys.argv[2]))
    data.pairs(given, scratch, settings, tokenizer.tokenizer)
    lines = [json.loads(line) for line in (scratch / data.TRAINING).read_text().splitlines()]
    most = BATCH * STEPS + 1  # NeMo asks for half a percent more than it takes
    pairs = data.Pairs(
        str(scratch / data.TRAINING), tokenizer, batch=BATCH, max_seq_length=64, memmap_workers=1, seed=SEED,
        max_num_samples=most,
    )  # fmt: skip
    batches = [data.AllBatches(len(pairs), data_parallel_rank=rank, drop_last=True, **share) for rank in (0, 1)]
    found["pairs"] = {
        "steps": dealt(batches, lambda index: pairs[index]["input_ids"]),
        "each": [line["input_ids"] for line in lines],
    }
    print(json.dumps(found))


def dealt(samplers: list[Any], sample: Any) -> list[list[Any]]:
    """The samples of each of the first steps, of all replicas together."""
    streams = [iter(sampler) for sampler in samplers]
    return [[sample(index) for stream in streams for index in next(stream)] for _ in range(STEPS)]


if __name__ == "__main__":
    main()
