"""What a directory in the form of Hugging Face lacks to be trained, by its file names and headers alone."""

from __future__ import annotations

from pathlib import Path

from jobs.core import safetensors

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tekken.json", "tiktoken.model", "tokenizer_config.json",
)  # fmt: skip
"""One of them is enough for transformers; an uncommon tokenizer has only the last one, and code of its own."""


def problem(directory: Path) -> str | None:
    """What is missing or cut off, as a sentence; None: the model looks complete."""
    if not any(path.is_file() for pattern in WEIGHTS for path in directory.glob(pattern)):
        return f"has no weights ({' or '.join(WEIGHTS)})"
    if (cut := _cut_off(directory)) is not None:
        return cut
    if not any((directory / name).is_file() for name in TOKENIZERS):
        return "has no tokenizer (tokenizer.json)"
    return None


def _cut_off(directory: Path) -> str | None:
    """The first file of safetensors that is not there, or shorter than its header says."""
    names = [path.name for path in sorted(directory.glob("model*.safetensors"))]
    index = directory / INDEX
    if index.is_file():
        try:
            names = safetensors.shards(index)
        except (OSError, ValueError) as error:
            return f"{INDEX} cannot be read: {error}"
    for name in names:
        try:
            header, size = safetensors.header(directory / name), (directory / name).stat().st_size
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {error}"
        if header.bytes != size:
            return f"{name} has {size} bytes, and its header says {header.bytes}"
    return None
