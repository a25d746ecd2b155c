"""A directory that passes for a complete base model: what ``plan`` looks at, and no weights worth the name."""

from __future__ import annotations

import json
from pathlib import Path

TENSOR = b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'


TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
}
"""It reads every word as the same unknown one."""


def complete(directory: Path) -> None:
    """Write weights of one number, and a tokenizer where there is none, beside the ``config.json`` of a test."""
    (directory / "model.safetensors").write_bytes(len(TENSOR).to_bytes(8, "little") + TENSOR + bytes(4))
    if not (directory / "tokenizer.json").exists():
        (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
