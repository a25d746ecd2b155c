"""How every stage loads a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.core import files
from jobs.core.verdict import FailureClass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WrongVocabulary(ValueError):
    """The tokenizer has ids that the model has no embedding for."""

    failure = FailureClass.TOKENIZER


def load(checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face directory, without the network and without code from the directory.

    Raises:
        WrongVocabulary: the model in the directory has no embedding for some of its ids.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(checkpoint), local_files_only=True)
    check_embedded(checkpoint, tokenizer.get_vocab().values(), embedded(checkpoint))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def embedded(checkpoint: Path) -> int | None:
    """How many ids the model of a Hugging Face directory has embeddings for; None where nothing says it."""
    config = files.read_json_or_none(checkpoint / "config.json") or {}
    sizes = [part.get("vocab_size") for part in (config, config.get("text_config") or {})]
    return next((size for size in sizes if isinstance(size, int)), None)


def check_embedded(checkpoint: Path, ids: Iterable[int], size: int | None) -> None:
    """Refuse a tokenizer with ids beyond the ``size`` embeddings of its model (more embeddings than ids are usual).

    Raises:
        WrongVocabulary: says which id.
    """
    largest = max(ids, default=0)
    if size is not None and largest >= size:
        raise WrongVocabulary(
            f"{checkpoint}: the tokenizer has the id {largest}, and the model embeds the ids below {size} (its "
            "vocab_size): give it its own tokenizer, or resize its embeddings (resize_token_embeddings) and save it"
        )
