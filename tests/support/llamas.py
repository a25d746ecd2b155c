"""Configurations of models that people train, as their config.json has them."""

from __future__ import annotations

from typing import Any

LLAMA_1B: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip
"""Of meta-llama/Llama-3.2-1B."""

LLAMA_3B: dict[str, Any] = {
    **LLAMA_1B,
    "num_hidden_layers": 28,
    "hidden_size": 3072,
    "num_attention_heads": 24,
    "head_dim": 128,
}
"""Of meta-llama/Llama-3.2-3B."""

QWEN_1B: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151936, "num_hidden_layers": 28, "hidden_size": 1536, "num_attention_heads": 12,
    "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": True,
}  # fmt: skip
"""Of Qwen/Qwen2.5-1.5B."""
