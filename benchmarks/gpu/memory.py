"""``python memory.py``: peak memory of training steps by hand, as the back end ``trl`` takes them, for the estimates.

Random Llamas of the shapes of Llama-3.2-1B and 3B in plain torch, transformers and peft; one JSON object a line.
What is measured is ``torch.cuda.max_memory_allocated`` of the second and third step.
"""

from __future__ import annotations

import gc
import json
import os
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {"1b": (2048, 8192, 16, 32, 64), "3b": (3072, 8192, 28, 24, 128)}
LONG = {"size": "3b", "micro": 1, "length": 4096}
CASES: dict[str, dict[str, Any]] = {
    "full": {}, "recompute": {"recompute": True}, "masked": {"masked": True}, "one row": {"micro": 1},
    "lora": {"lora": {}}, "lora, recompute": {"lora": {}, "recompute": True},
    "lora, masked": {"lora": {}, "masked": True}, "lora, dropout": {"lora": {"lora_dropout": 0.1}},
    "dora": {"lora": {"use_dora": True}}, "lora 3b": {"lora": {}, **LONG},
    "fsdp": {"sharded": True}, "fsdp, one pass": {"sharded": True, "passes": 1},
    "fsdp, recompute": {"sharded": True, "recompute": True}, "fsdp 3b": {"sharded": True, **LONG, "passes": 4},
    "fsdp 3b, recompute": {"sharded": True, "recompute": True, **LONG, "micro": 2},
}  # fmt: skip


def made(size: str) -> LlamaForCausalLM:
    hidden, ffn, layers, heads, head = SIZES[size]
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=head,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        use_cache=False,
    )
    with torch.device("cuda"):
        return LlamaForCausalLM(config)


def peak(
    size: str = "1b",
    micro: int = 4,
    passes: int = 2,
    length: int = 2048,
    recompute: bool = False,
    masked: bool = False,
    sharded: bool = False,
    lora: dict[str, Any] | None = None,
) -> int:
    """Bytes that tensors took at most."""
    model: Any = made(size)
    if lora is not None:
        config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **lora)
        model = get_peft_model(model.bfloat16(), config)
    if recompute:
        model.gradient_checkpointing_enable()
        if lora is not None:
            model.enable_input_require_grads()
    model.train()
    if sharded:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for layer in model.model.layers:
            fully_shard(layer, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], fused=True)
    ids = torch.randint(128000, (micro, length), device="cuda")
    more = {}
    if masked:
        more["attention_mask"] = torch.ones_like(ids)
        more["attention_mask"][0, -9:] = 0
    for step in range(3):
        if step == 1:
            torch.cuda.reset_peak_memory_stats()
        for number in range(passes):
            if sharded:
                model.set_requires_gradient_sync(number == passes - 1)
            with torch.autocast("cuda", torch.bfloat16, enabled=not sharded):
                loss = model(input_ids=ids, labels=ids, **more).loss
            (loss / passes).backward()
            del loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29777"}
    dist.init_process_group("nccl", rank=0, world_size=1)
    for name, case in CASES.items():
        print(json.dumps({"case": name, **case, "peak_memory_bytes": peak(**case)}), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
