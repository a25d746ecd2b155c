"""A corpus as token ids: one text, the blocks that are trained on, the files of a tokenised corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.training.examples import ExamplesError, end_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of one document of a corpus, closed by the end-of-sequence token."""
    return [*tokenizer(text)["input_ids"], end_id(tokenizer)]


def pack(documents: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Join documents and cut them into blocks of exactly ``length`` ids; the rest is dropped.

    Raises:
        DataError: not even one block.
    """
    joined = [token for document in documents for token in document]
    blocks = [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]
    if not blocks:
        raise ExamplesError(f"the corpus has {len(joined)} tokens, less than one block of {length}")
    return blocks


def tokens_prefix(directory: Path, split: str) -> Path:
    """Prefix of the ``.bin`` and ``.idx`` files of a split of a tokenised corpus.

    Raises:
        DataError: one of the two is missing.
    """
    prefix = directory / split
    for suffix in (".bin", ".idx"):
        if not prefix.with_name(prefix.name + suffix).is_file():
            raise ExamplesError(f"{prefix}{suffix}: no such file in the tokenised corpus")
    return prefix
