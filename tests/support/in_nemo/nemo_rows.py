"""The rows of a data set as NeMo's data sets feed them: ``python nemo_rows.py SETTINGS DATA TOKENIZER DIRECTORY``.

Prints one JSON line: for rows alone and packed, [ids, which of the next ids are learned] of each row.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path


def main() -> None:
    """Make the files, batch every sequence."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    from jobs.backends.nemo import data
    from jobs.backends.nemo.settings import NemoSettings
    from jobs.core.spec import Input

    given = Input("data", sys.argv[2], "dataset", "instructions", "ab" * 32)
    tokenizer = AutoTokenizer(sys.argv[3])
    found: dict[str, list[tuple[list[int], list[int]]]] = {"alone": [], "packed": []}
    for name, kind in (("alone", data.Pairs), ("packed", data.Packs)):
        settings = NemoSettings.read({**json.loads(sys.argv[1]), "packed": name == "packed"})
        scratch = Path(sys.argv[4]) / name
        data.pairs(given, scratch, settings, tokenizer.tokenizer)
        rows = kind(
            str(scratch / "training.jsonl"), tokenizer, max_seq_length=settings.sequence_length, memmap_workers=1
        )
        for number in range(len(rows)):
            batch = rows.collate_fn([rows[number]])
            ids, mask = batch["tokens"][0].tolist(), batch["loss_mask"][0].int().tolist()
            if name == "alone":
                found[name].append((ids, mask))
                continue
            places = batch["position_ids"][0].tolist()
            starts = [at for at, place in enumerate(places) if place == 0]
            for start, end in itertools.pairwise([*starts, len(ids)]):
                if any(mask[start:end]):
                    found[name].append((ids[start:end], mask[start:end]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
