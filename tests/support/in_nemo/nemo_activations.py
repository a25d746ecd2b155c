"""Bytes that Megatron's local layers keep for their backward pass: ``python nemo_activations.py TOKENIZER``, on the CPU.

Every bf16 tensor that autograd saves in one forward pass of 3 layers, each storage once, without the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print one JSON line."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import torch
    from nemo.collections import llm
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.lightning import _strategy_lib

    from jobs.backends.nemo import compat, convert

    with compat.local_configs():
        config = llm.Llama31Config8B(
            num_layers=3,
            hidden_size=256,
            ffn_hidden_size=704,
            num_attention_heads=8,
            num_query_groups=2,
            kv_channels=32,
            seq_length=128,
            share_embeddings_and_output_weights=True,
            vocab_size=1024,
        )
    model = llm.LlamaModel(config, tokenizer=AutoTokenizer(sys.argv[1]))
    convert._set_type(model, torch.bfloat16)
    trainer = convert._single(ddp="pytorch", setup_optimizers=False)
    trainer.strategy.connect(model)
    trainer.strategy.setup_environment()
    with _strategy_lib.megatron_cpu_init_context(model.config):
        model.configure_model()
    trainer.strategy.setup(trainer)
    model.to(torch.bfloat16).train()
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if value.dtype is torch.bfloat16 and storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    ids = torch.zeros(2, 128, dtype=torch.long)
    hidden = torch.ones(128, 128, dtype=torch.bool).triu(1)[None, None]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(ids, torch.arange(128)[None], hidden, labels=ids)  # held: what it keeps must not be freed
    print(json.dumps({"kept": sum(kept.values()), "loss": float(loss.mean())}))


if __name__ == "__main__":
    main()
