"""Four samples of the CPT data set over text with its padding id in it: ``python nemo_blocks.py DIRECTORY``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    """Print one JSON line: tokens left out of the loss, and how often masks were made."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import numpy
    import torch
    from megatron.core.datasets import gpt_dataset
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    from jobs.backends.nemo.data import NemoBlocks

    prefix = f"{sys.argv[1]}/corpus"
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=numpy.uint16)
    for _ in range(20):
        builder.add_document(torch.tensor([5, 6, 7, 8, 2], dtype=torch.int32), [5])
    builder.finalize(f"{prefix}.idx")
    made: list[int] = []
    original = gpt_dataset._get_ltor_masks_and_position_ids

    def counted(*args: object) -> object:
        made.append(1)
        return original(*args)

    gpt_dataset._get_ltor_masks_and_position_ids = counted
    config = gpt_dataset.GPTDatasetConfig(
        random_seed=1,
        sequence_length=16,
        blend=([prefix], None),
        split="1,0,0",
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache=f"{sys.argv[1]}/index",
        tokenizer=SimpleNamespace(eod=2, pad=2, unique_identifiers={}),
    )
    (found, *_) = BlendedMegatronDatasetBuilder(NemoBlocks, [4, None, None], lambda: True, config).build()
    left_out = sum(int((found[number]["loss_mask"] == 0).sum()) for number in range(4))
    print(json.dumps({"left_out": left_out, "made": len(made)}))


if __name__ == "__main__":
    main()
