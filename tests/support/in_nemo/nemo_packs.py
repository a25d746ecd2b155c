"""A packed batch, seen by a tiny model of Megatron's: ``python nemo_packs.py SETTINGS DATA CHECKPOINT DIRECTORY``.

Prints one JSON line: the loss of every place of the rows of one sequence, packed and alone, of a model with rotary
positions (which tell only distances) and of one with learned ones; where rows start in the batch that
transformer_engine would get; and the file of packed sequences.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock


def main() -> None:
    """Make the batch, run both models."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import torch

    from jobs.backends.nemo import compat, convert, data, model
    from jobs.backends.nemo.settings import NemoSettings
    from jobs.core.spec import Input

    settings = NemoSettings.read({**json.loads(sys.argv[1]), "packed": True})
    given = Input("data", sys.argv[2], "dataset", "instructions", "ab" * 32)
    checkpoint, scratch = Path(sys.argv[3]), Path(sys.argv[4])
    tokenizer = model.tokenizer(checkpoint)
    data.pairs(given, scratch, settings, tokenizer.tokenizer)
    found = data.Packs(
        str(scratch / "training.jsonl"),
        tokenizer,
        max_seq_length=settings.sequence_length,
        memmap_workers=1,
        seed=3,
        max_num_samples=4,
    )
    batch = found.collate_fn([found[0]])
    with mock.patch.object(compat, "has_transformer_engine", return_value=True):
        fused = data.Packs(
            str(scratch / "training.jsonl"), tokenizer, max_seq_length=settings.sequence_length, memmap_workers=1
        )
    theirs = fused.collate_fn([fused[found.samples_mapping[0]]])

    relative, _ = convert.load_nemo(checkpoint)
    networks = {"rotary": relative, "learned": _with_learned_positions(relative)}
    starts = theirs["cu_seqlens"][0].tolist()
    starts = starts[: starts.index(-1)]
    rows = [(start, stop) for start, stop in itertools.pairwise(starts) if batch["loss_mask"][0, start:stop].any()]
    losses: dict[str, Any] = {}
    for name, network in networks.items():
        together = _losses(network, *(batch[key] for key in ("tokens", "position_ids", "attention_mask", "labels")))
        losses[name] = {"packed": [], "alone": []}
        for start, stop in rows:
            length = stop - start
            mask = torch.ones(length, length, dtype=torch.bool).triu(1)[None, None]
            place = torch.arange(length)[None]
            one = _losses(network, batch["tokens"][:, start:stop], place, mask, batch["labels"][:, start:stop])
            losses[name]["packed"].append(together[start:stop].tolist())
            losses[name]["alone"].append(one.tolist())
    print(
        json.dumps(
            {
                "losses": losses,
                "starts": starts,
                "facts": data.packing(scratch),
                "order": list(found.samples_mapping),
                "learned": [int(batch["loss_mask"][0, start:stop].sum()) for start, stop in rows],
                "keys": sorted(theirs),
                "shapes": {key: list(batch[key].shape) for key in ("tokens", "attention_mask")},
                "lines": [json.loads(line) for line in (scratch / "training.jsonl").read_text().splitlines()],
            }
        )
    )


def _losses(network: Any, tokens: Any, positions: Any, mask: Any, labels: Any) -> Any:
    import torch

    with torch.inference_mode():
        return network.eval()(input_ids=tokens, position_ids=positions, attention_mask=mask, labels=labels)[0].float()


def _with_learned_positions(network: Any) -> Any:
    """A model of random weights like ``network``, with learned positions."""
    import dataclasses

    import torch
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    torch.manual_seed(1)
    config = dataclasses.replace(network.config, num_layers=1, perform_initialization=True)
    return GPTModel(
        config,
        get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocab_size=400,
        max_sequence_length=64,
        position_embedding_type="learned_absolute",
    )


if __name__ == "__main__":
    main()
